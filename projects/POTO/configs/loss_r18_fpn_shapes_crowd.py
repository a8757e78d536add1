from ....configs.common.shapes_crowd import dataloader, lr_multiplier, make_twin, optimizer, train
from .loss_r50_fpn_3x_ms_coco import model
from .poto_r50_fpn_30k_crowdhuman import one_class

one_class(model)
make_twin(model)
