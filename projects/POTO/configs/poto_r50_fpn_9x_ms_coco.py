from ....configs.common.schedules import lr_multiplier_9x as lr_multiplier
from .poto_r50_fpn_3x_ms_coco import dataloader, model, optimizer, train

train.max_iter = 810000
