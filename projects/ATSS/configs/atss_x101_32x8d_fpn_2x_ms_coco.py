from ....configs.common.atss_2x_ms import dataloader, lr_multiplier, optimizer, train
from ....configs.common.models.atss import model, use_resnext

use_resnext(model, num_groups=32, width_per_group=8)
train.init_checkpoint = "detectron2://ImageNetPretrained/FAIR/X-101-32x8d.pkl"
