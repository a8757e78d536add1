from ....configs.common.data.coco import dataloader
from ....configs.common.models.fcos import model
from ....configs.common.optim import SGD as optimizer
from ....configs.common.schedules import lr_multiplier_3x as lr_multiplier
from ....configs.common.train import train

train.max_iter = 270000
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
