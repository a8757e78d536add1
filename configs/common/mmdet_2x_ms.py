"""MMDetection's 24 epochs on COCO, any shorter side from 480 to 800."""

from .mmdet_1x import dataloader, optimizer, train, warmup
from .schedules import multistep

dataloader.train.mapper.augmentations[0].update(short_edge_length=(480, 800), sample_style="range")
lr_multiplier = multistep(175920, (117280, 161260), **warmup)
train.max_iter = 175920
