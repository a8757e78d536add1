"""OneNet's recipe on CrowdHuman: 46,875 iterations (50 epochs), no crops."""

from .data.crowdhuman import dataloader
from .onenet_270k import optimizer, train, warmup
from .schedules import multistep

dataloader.train.mapper.augmentations[0].short_edge_length = list(range(640, 897, 32))
dataloader.train.mapper.image_format = "RGB"
lr_multiplier = multistep(46875, (37500,), **warmup)
train.max_iter = 46875


def use_crowdhuman(model):
    """One class and more detections."""
    model.num_classes = 1
    model.inference.max_detections = 500
