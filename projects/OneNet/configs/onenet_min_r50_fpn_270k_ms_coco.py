"""Ours: nobody published the minimum rule with this head."""

from ....configs.common.models.onenet_min import model
from ....configs.common.onenet_270k import dataloader, lr_multiplier, optimizer, train
