from ....configs.common.models.atss import use_dcn
from .atss_x101_64x4d_fpn_2x_ms_coco import dataloader, lr_multiplier, model, optimizer, train

use_dcn(model, ["res4", "res5"])
