"""DETR's training augmentation, as DATE's longer recipes use it."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from la_det.data.transforms import ResizeShortestEdge


def detr_augmentations(short_sides, max_size):
    """Flip; for every other image crop from 384 to 600 pixels after a resize to 400, 500 or 600; then resize.

    A crop may lose all objects. `short_sides` are chosen from at last; no long side exceeds `max_size`.
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
