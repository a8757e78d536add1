from ....configs.common.ddq_12ep import dataloader, lr_multiplier, optimizer, train
from ....configs.common.models.ddq_fcn import model
