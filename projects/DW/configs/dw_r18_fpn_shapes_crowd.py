from ....configs.common.models.dw import model
from ....configs.common.shapes_crowd import dataloader, lr_multiplier, optimizer, shrink, train

shrink(model, num_classes=1)
model.inference.max_detections = 500
