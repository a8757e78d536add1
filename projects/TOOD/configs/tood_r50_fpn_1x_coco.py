from ....configs.common.mmdet_1x import dataloader, lr_multiplier, optimizer, train
from ....configs.common.models.tood import model

dataloader.train.mapper.image_format = "RGB"
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
