from ....configs.common.paa_135k import dataloader, lr_multiplier, optimizer, train
from ....configs.common.models.paa import model

train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
