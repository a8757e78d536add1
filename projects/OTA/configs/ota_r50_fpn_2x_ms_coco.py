"""A reconstruction: the repository says no more of its 2x schedule than that the short side is from 640 to 800."""

from ....configs.common.data.coco import dataloader
from ....configs.common.schedules import lr_multiplier_2x as lr_multiplier
from .ota_r50_fpn_1x_coco import model, optimizer, train

train.max_iter = 180000
