from ....configs.common.shapes_crowd import dataloader, lr_multiplier, optimizer, shrink, train
from .center_r50_fpn_3x_ms_coco import model

shrink(model, num_classes=1)
model.inference.max_detections = 500
