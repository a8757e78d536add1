from ....configs.common.shapes_crowd import dataloader, lr_multiplier, make_twin, optimizer, train
from .poto_r50_fpn_30k_crowdhuman import model

model.criteria[0].matcher.hungarian = False
make_twin(model)
