"""DATE's recipe on COCO, 36 epochs, with DETR's augmentation."""

from .data.detr_augmentation import detr_augmentations
from .date_12ep import dataloader, optimizer, train
from .schedules import lr_multiplier_36_epochs as lr_multiplier

dataloader.train.mapper.augmentations = detr_augmentations(range(480, 801, 32), max_size=1333)
train.max_iter = 263880
