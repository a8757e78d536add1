from ....configs.common.models.dynamic_atss import criteria
from ...ATSS.configs.atss_r18_fpn_shapes_crowd import dataloader, lr_multiplier, model, optimizer, train

model.criteria = criteria
