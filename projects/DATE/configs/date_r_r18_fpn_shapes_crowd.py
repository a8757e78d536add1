from ....configs.common.date_30k_crowdhuman import use_crowdhuman
from ....configs.common.models.date_r import model
from ....configs.common.shapes_crowd import dataloader, lr_multiplier, optimizer, shrink, train

use_crowdhuman(model)
shrink(model, num_classes=1)
