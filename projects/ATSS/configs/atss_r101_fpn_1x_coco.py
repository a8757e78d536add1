from ....configs.common.atss_1x import dataloader, lr_multiplier, optimizer, train
from ....configs.common.models.atss import model

model.backbone.bottom_up.stages.depth = 101
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-101.pkl"
