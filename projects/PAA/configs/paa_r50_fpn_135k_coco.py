from ....configs.common.models.paa import model
from ....configs.common.paa_135k import dataloader, lr_multiplier, optimizer, train

train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
