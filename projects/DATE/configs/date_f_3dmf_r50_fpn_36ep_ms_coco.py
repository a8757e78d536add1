from ....configs.common.date_36ep_ms import dataloader, lr_multiplier, optimizer, train
from ....configs.common.models.date_f_3dmf import model
