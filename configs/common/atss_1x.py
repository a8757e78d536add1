"""ATSS's recipe on COCO, 1x: 90,000 iterations, shorter side 800 (the solver of maskrcnn-benchmark)."""

from .data.coco import dataloader
from .optim import SGD as optimizer
from .schedules import multistep
from .train import train

dataloader.train.mapper.augmentations[0].short_edge_length = 800
optimizer.params.update(bias_lr_factor=2.0, weight_decay_bias=0.0, weight_decay_norm=1e-4)
warmup = dict(warmup_iter=500, warmup_factor=1 / 3, warmup_method="constant")
lr_multiplier = multistep(90000, (60000, 80000), **warmup)
train.max_iter = 90000
