from ....configs.common.atss_2x_ms import dataloader, lr_multiplier, optimizer, train
from ....configs.common.models.atss import model, use_resnext

use_resnext(model, num_groups=64, width_per_group=4)
train.init_checkpoint = "catalog://ImageNetPretrained/FAIR/X-101-64x4d"
