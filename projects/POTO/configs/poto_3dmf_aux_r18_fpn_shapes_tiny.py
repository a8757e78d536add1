from ....configs.common.models.poto_3dmf_aux import model
from ....configs.common.shapes_tiny import dataloader, lr_multiplier, optimizer, shrink, train

shrink(model)
