from ....configs.common.models.onenet_fcos import model
from ....configs.common.onenet_270k import dataloader, lr_multiplier, optimizer, train
