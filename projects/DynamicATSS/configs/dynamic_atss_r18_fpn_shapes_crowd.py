from ....configs.common.models.dynamic_atss import criteria
from ....configs.common.shapes_crowd import dataloader, lr_multiplier, make_twin, optimizer, train
from ...ATSS.configs.atss_r50_fpn_30k_crowdhuman import model

model.criteria = criteria
make_twin(model)
