from ....configs.common.models.poto_3dmf_aux import model
from .poto_r50_fpn_30k_crowdhuman import dataloader, lr_multiplier, one_class, optimizer, train

one_class(model)
