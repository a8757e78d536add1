from ....configs.common.models.dynamic_atss import criteria
from ...ATSS.configs.atss_r50_fpn_1x_coco import dataloader, lr_multiplier, model, optimizer, train

model.criteria = criteria
