"""DDQ's recipe on COCO, 36 epochs, with DETR's augmentation and clipping."""

from .data.detr_augmentation import detr_augmentations
from .ddq_12ep import dataloader, optimizer, train, warmup
from .schedules import multistep

dataloader.train.mapper.augmentations = detr_augmentations(range(480, 801, 32), max_size=1333)
lr_multiplier = multistep(263880, (197910, 241890), **warmup)
train.max_iter = 263880
train.clip_grad.max_norm = 10.0
