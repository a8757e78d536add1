from ....configs.common.models.atss import use_dcn
from .atss_r101_fpn_1x_coco import dataloader, lr_multiplier, model, optimizer, train

use_dcn(model, ["res3", "res4", "res5"])
