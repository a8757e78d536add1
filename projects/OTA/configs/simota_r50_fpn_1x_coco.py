"""Ours: OTA's recipe with SimOTA, whose authors trained other networks with it."""

from ....configs.common.models.simota import model
from .ota_r50_fpn_1x_coco import dataloader, lr_multiplier, optimizer, train
