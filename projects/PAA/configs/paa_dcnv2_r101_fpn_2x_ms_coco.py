from ....configs.common.models.paa import use_dcn
from .paa_r101_fpn_2x_ms_coco import dataloader, lr_multiplier, model, optimizer, train

use_dcn(model, ["res3", "res4", "res5"])
