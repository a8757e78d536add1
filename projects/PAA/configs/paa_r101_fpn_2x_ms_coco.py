from ....configs.common.atss_2x_ms import dataloader, lr_multiplier, optimizer, train
from ....configs.common.models.paa import model

model.backbone.bottom_up.stages.depth = 101
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-101.pkl"
