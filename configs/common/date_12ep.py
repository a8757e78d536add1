"""DATE's recipe on COCO, 12 epochs: short side 800, AdamW with a lower learning rate for the ResNet, clipping."""

from .data.coco import dataloader
from .optim import AdamW as optimizer
from .schedules import lr_multiplier_12_epochs as lr_multiplier
from .train import train

dataloader.train.mapper.augmentations[0].short_edge_length = 800
optimizer.update(lr=4e-4, weight_decay=1e-4)
optimizer.params.update(weight_decay_norm=None, lr_factors={"backbone.bottom_up": 0.1})
train.max_iter = 87960
train.clip_grad.max_norm = 0.1
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
