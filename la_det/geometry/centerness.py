"""FCOS's centerness (Tian et al., ICCV 2019, eq. 3)."""

import torch
from torch import Tensor


def centerness(points: Tensor, boxes: Tensor) -> Tensor:
    """Centerness [P] of points [P, 2] in boxes [P, 4]: sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)).

    It is 0 for a point outside its box.
    """
    before, after = points - boxes[:, :2], boxes[:, 2:] - points
    of_x, of_y = (torch.minimum(before, after) / torch.maximum(before, after)).clamp_(min=0).unbind(-1)
    return (of_x * of_y).sqrt_()
