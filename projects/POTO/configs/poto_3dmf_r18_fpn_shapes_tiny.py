from ....configs.common.models.poto_3dmf import model
from ....configs.common.shapes_tiny import dataloader, lr_multiplier, optimizer, shrink, train

shrink(model)
