from ....configs.common.shapes_tiny import dataloader, lr_multiplier, optimizer, shrink, train
from .poto_3dmf_wo_gn_r50_fpn_3x_ms_coco import model

shrink(model)
