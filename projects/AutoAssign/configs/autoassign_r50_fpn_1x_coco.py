from ....configs.common.data.coco import dataloader
from ....configs.common.models.autoassign import model
from ....configs.common.optim import SGD as optimizer
from ....configs.common.schedules import lr_multiplier_1x as lr_multiplier
from ....configs.common.train import train

dataloader.train.mapper.augmentations[0].short_edge_length = 800
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
