from ....configs.common.lla_30k import dataloader, lr_multiplier, optimizer, train
from ....configs.common.models.lla import model

model.num_classes = 1
