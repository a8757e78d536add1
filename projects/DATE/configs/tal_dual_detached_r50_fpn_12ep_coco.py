from ....configs.common.date_12ep import dataloader, lr_multiplier, optimizer, train
from ....configs.common.models.tal_dual_detached import model
