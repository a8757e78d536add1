"""IoU and generalised IoU of aligned box pairs.

torchvision's pairwise `box_iou` would need a P x P matrix, and its `generalized_box_iou_loss` places its epsilon
differently from the schemes here, which shows for boxes without area.
"""

import torch
from torch import Tensor

FLOAT32_EPS = torch.finfo(torch.float32).eps


def aligned_iou(a: Tensor, b: Tensor, eps: float = FLOAT32_EPS) -> Tensor:
    """IoU [...] of boxes [..., 4] and [..., 4], XYXY; 0 where they do not meet. The union is at least `eps`."""
    intersection, union = _intersection_and_union(a, b)
    return intersection / union.clamp(min=eps)


def aligned_giou(a: Tensor, b: Tensor, eps: float = FLOAT32_EPS) -> Tensor:
    """Generalised IoU [...] (Rezatofighi et al., CVPR 2019); union and enclosing area are at least `eps`."""
    intersection, union = _intersection_and_union(a, b)
    enclosing = _product(torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2]))
    return intersection / union.clamp(min=eps) - (enclosing - union) / enclosing.clamp(min=eps)


def _intersection_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    # clamp has gradient 1 at exactly 0, as in the official losses: a prediction without area can still grow.
    sides = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    intersection = _product(sides)
    return intersection, _area(a) + _area(b) - intersection


def _area(boxes: Tensor) -> Tensor:
    return _product((boxes[..., 2:] - boxes[..., :2]).clamp(min=0))


def _product(sides: Tensor) -> Tensor:
    width, height = sides.unbind(-1)
    return width * height  # Tensor.prod's gradient waits for the GPU
