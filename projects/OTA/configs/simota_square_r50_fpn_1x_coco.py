from ....configs.common.models.simota_square import model
from .simota_r50_fpn_1x_coco import dataloader, lr_multiplier, optimizer, train
