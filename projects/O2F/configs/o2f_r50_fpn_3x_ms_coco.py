from ....configs.common.schedules import lr_multiplier_36_epochs as lr_multiplier
from .o2f_r50_fpn_1x_coco import dataloader, model, optimizer, train

model.criteria[0].matcher.num_epochs = 36
# Any integer from 640 to 800.
dataloader.train.mapper.augmentations[0].update(short_edge_length=(640, 800), sample_style="range")
train.max_iter = 263880
