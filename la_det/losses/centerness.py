"""FCOS's centerness (Tian et al., ICCV 2019, eq. 3)."""

import torch
from torch import Tensor


def centerness(points: Tensor, boxes: Tensor) -> Tensor:
    """sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)) of points [P, 2] in boxes [P, 4]: [P].

    0 for points outside their box.
    """
    before, after = points - boxes[:, :2], boxes[:, 2:] - points
    ratios = torch.minimum(before, after) / torch.maximum(before, after)
    return ratios.clamp(min=0).prod(-1).sqrt()
