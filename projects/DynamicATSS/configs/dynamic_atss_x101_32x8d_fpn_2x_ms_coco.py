from ....configs.common.models.dynamic_atss import criteria
from ...ATSS.configs.atss_x101_32x8d_fpn_2x_ms_coco import dataloader, lr_multiplier, model, optimizer, train

model.criteria = criteria
