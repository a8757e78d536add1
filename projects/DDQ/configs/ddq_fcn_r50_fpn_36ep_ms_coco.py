from ....configs.common.ddq_36ep_ms import dataloader, lr_multiplier, optimizer, train
from ....configs.common.models.ddq_fcn import model
