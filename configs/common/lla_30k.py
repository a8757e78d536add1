"""The LLA repository's recipe on CrowdHuman: 30 epochs; ignored boxes stay among the ground truths."""

from .data.crowdhuman import dataloader
from .optim import SGD as optimizer
from .schedules import multistep
from .train import train

dataloader.train.mapper.ignored = "mark"
lr_multiplier = multistep(28125, (18750, 24735))
train.max_iter = 28125
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
