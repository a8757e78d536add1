"""Boxes relative to the size of their image, as DETR compares them (Carion et al., ECCV 2020)."""

import torch
from torch import Tensor

from la_det.structures import Targets, on_device


def image_scales(targets: Targets) -> Tensor:
    """[N, 4] (w, h, w, h) of the images before padding, pixels."""
    return on_device([(w, h, w, h) for h, w in targets.image_sizes], targets.boxes.device, targets.boxes.dtype)


def relative_boxes(boxes: Tensor, scales: Tensor, corners: bool = False) -> Tensor:
    """Boxes [..., 4] XYXY in units of `scales` [..., 4]: [..., 4] centre, width and height, or the corners."""
    boxes = boxes / scales
    return boxes if corners else torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], -1)
