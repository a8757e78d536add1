"""PAA's 1.5x: ATSS's recipe with 135,000 iterations."""

from .atss_1x import dataloader, optimizer, train, warmup
from .schedules import multistep

lr_multiplier = multistep(135000, (90000, 120000), **warmup)
train.max_iter = 135000
