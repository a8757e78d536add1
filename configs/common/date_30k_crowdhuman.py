"""DATE's recipe on CrowdHuman: 30,000 iterations, DETR's augmentation, one-to-one matching over all locations."""

from detectron2.config import LazyCall as L

from la_det.matchers import Hungarian

from .data.crowdhuman import dataloader
from .data.detr_augmentation import detr_augmentations
from .date_12ep import optimizer, train
from .schedules import multistep

dataloader.train.mapper.augmentations = detr_augmentations(range(640, 897, 32), max_size=1400)
lr_multiplier = multistep(30000, (20000, 25000))
train.max_iter = 30000


def use_crowdhuman(model):
    """Changes a model to one class, DETR's cost for the one-to-one branch, and more detections."""
    model.num_classes = 1
    model.criteria[0].matcher = L(Hungarian)()
    model.inference.candidates.topk = 1000
    model.inference.max_detections = 500
