"""Distances from points to the sides of boxes (FCOS, ICCV 2019, eq. 1)."""

import torch
from torch import Tensor


def ltrb_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Distances [..., 4] from points [..., 2] to the left, top, right and bottom sides of boxes [..., 4], pixels."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], -1)
