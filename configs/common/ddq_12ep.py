"""DDQ's recipe on COCO, 12 epochs: short side 800, AdamW with a strong weight decay of every parameter, no clipping."""

from .data.coco import dataloader
from .optim import AdamW as optimizer
from .schedules import multistep
from .train import train

dataloader.train.mapper.augmentations[0].short_edge_length = 800
dataloader.train.mapper.image_format = "RGB"
optimizer.update(lr=5e-5, weight_decay=0.1)
optimizer.params.weight_decay_norm = None
warmup = dict(warmup_iter=500, warmup_factor=0.001)
lr_multiplier = multistep(87960, (58640, 80630), **warmup)
train.max_iter = 87960
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
