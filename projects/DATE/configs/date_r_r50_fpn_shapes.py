from ....configs.common.models.date_r import model
from ....configs.common.shapes import dataloader, from_scratch, lr_multiplier, optimizer, train

from_scratch(model)
