from ....configs.common.shapes_crowd import dataloader, lr_multiplier, optimizer, shrink, train
from .o2f_r50_fpn_47k_crowdhuman import model

shrink(model, num_classes=1)
