from ....configs.common.shapes import dataloader, from_scratch, lr_multiplier, optimizer, train
from .poto_argmax_r50_fpn_3x_ms_coco import model

from_scratch(model)
