from ....configs.common.schedules import lr_multiplier_24_epochs as lr_multiplier
from .dw_r50_fpn_1x_coco import dataloader, model, optimizer, train

# Any integer from 480 to 960.
dataloader.train.mapper.augmentations[0].update(short_edge_length=(480, 960), sample_style="range")
train.max_iter = 175920
