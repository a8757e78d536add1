from ....configs.common.models.fcos_wo_ctrness import model
from ....configs.common.shapes_tiny import dataloader, lr_multiplier, optimizer, shrink, train

shrink(model)
