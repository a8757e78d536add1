"""DETR's training augmentation, as DATE's longer recipes use it."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from la_det.data.transforms import ResizeShortestEdge


def detr_augmentations(short_sides, max_size):
    """Random flip; for half of the images a resize to 400, 500 or 600 and a crop of 384 to 600 pixels; then a resize.

    A crop may lose all objects. The last resize chooses from `short_sides`. All long sides are at most `max_size`.
    """
    crop = L(T.AugmentationList)(
        augs=[
            L(ResizeShortestEdge)(short_edge_length=[400, 500, 600], max_size=max_size, sample_style="choice"),
            L(T.RandomCrop)(crop_type="absolute_range", crop_size=[384, 600]),
        ]
    )
    return [
        L(T.RandomFlip)(horizontal=True),
        L(T.RandomApply)(tfm_or_aug=crop, prob=0.5),
        L(ResizeShortestEdge)(short_edge_length=list(short_sides), max_size=max_size, sample_style="choice"),
    ]
