from ....configs.common.models.dynamic_atss import criteria
from ...ATSS.configs.atss_r50_fpn_shapes import dataloader, lr_multiplier, model, optimizer, train

model.criteria = criteria
