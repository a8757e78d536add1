from ....configs.common.shapes_crowd import dataloader, lr_multiplier, optimizer, shrink, train
from .poto_3dmf_r50_fpn_30k_crowdhuman import model

shrink(model, num_classes=1)
