"""Ours: nobody published POTO on distinct queries."""

from ....configs.common.models.poto_distinct import model
from .poto_r50_fpn_3x_ms_coco import dataloader, lr_multiplier, optimizer, train
