from ....configs.common.mmdet_2x_ms import dataloader, lr_multiplier, optimizer, train
from ....configs.common.models.tood import model

# ATSS decides in 4 of the 24 epochs.
model.criteria[0].matcher.at = 4 / 24
dataloader.train.mapper.image_format = "RGB"
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
