"""OneNet's recipe on COCO: 270,000 iterations with DETR's augmentation, AdamW with one learning rate, clipping."""

from .data.coco import dataloader
from .data.detr_augmentation import detr_augmentations
from .optim import AdamW as optimizer
from .schedules import multistep
from .train import train

dataloader.train.dataset.filter_empty = False
dataloader.train.mapper.update(augmentations=detr_augmentations(range(640, 897, 32), max_size=1500), image_format="RGB")
optimizer.update(lr=4e-5, weight_decay=1e-4)
optimizer.params.weight_decay_norm = None
warmup = dict(warmup_iter=1000, warmup_factor=0.01)
lr_multiplier = multistep(270000, (210000, 250000), **warmup)
train.max_iter = 270000
train.clip_grad.max_norm = 1.0
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
