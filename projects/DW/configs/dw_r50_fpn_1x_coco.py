from ....configs.common.data.coco import dataloader
from ....configs.common.models.dw import model
from ....configs.common.optim import SGD as optimizer
from ....configs.common.schedules import lr_multiplier_12_epochs as lr_multiplier
from ....configs.common.train import train

dataloader.train.mapper.augmentations[0].short_edge_length = 800
dataloader.train.mapper.image_format = "RGB"
train.max_iter = 87960
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
