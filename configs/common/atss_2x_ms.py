"""ATSS's recipe on COCO, 2x with multi-scale training: 180,000 iterations, any shorter side from 640 to 800."""

from .atss_1x import dataloader, optimizer, train, warmup
from .schedules import multistep

dataloader.train.mapper.augmentations[0].update(short_edge_length=(640, 800), sample_style="range")
lr_multiplier = multistep(180000, (120000, 160000), **warmup)
train.max_iter = 180000
