from ....configs.common.atss_1x import dataloader, lr_multiplier, optimizer, train
from ....configs.common.models.paa import model

train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
