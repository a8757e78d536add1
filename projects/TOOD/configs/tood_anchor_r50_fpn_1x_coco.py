from ....configs.common.models.tood_anchor import model
from .tood_r50_fpn_1x_coco import dataloader, lr_multiplier, optimizer, train
