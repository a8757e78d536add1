from ....configs.common.models.fcos import model
from ....configs.common.shapes_tiny import dataloader, lr_multiplier, optimizer, shrink, train

shrink(model)
