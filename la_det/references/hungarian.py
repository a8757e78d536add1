"""DATE's Hungarian cost on the dense matrix, as the official code computes it."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from la_det.references.image import Image


def cost_matrix(logits: Tensor, boxes: Tensor, gt_boxes: Tensor, gt_classes: Tensor, size: tuple[int, int]) -> Tensor:
    """K [R, G] of one image from logits [R, K], boxes [R, 4] and an image of (height, width)."""
    p = logits.sigmoid()
    positive = -0.25 * (1 - p) ** 2 * torch.log(p + 1e-12)
    negative = -0.75 * p**2 * torch.log(1 - p + 1e-12)
    cls = 2 * (positive - negative)[:, gt_classes]

    scale = torch.tensor([size[1], size[0], size[1], size[0]], dtype=torch.float32)
    l1 = 5 * torch.cdist(_cxcywh(boxes / scale), _cxcywh(gt_boxes / scale), p=1)
    return cls + l1 - 2 * _giou(boxes, gt_boxes)


def assign(logits: Tensor, boxes: Tensor, gt_boxes: Tensor, gt_classes: Tensor, size: tuple[int, int]) -> Tensor:
    """Index of the ground truth of each location [R], -1 for none."""
    assigned = torch.full((len(boxes),), -1)
    rows, columns = linear_sum_assignment(cost_matrix(logits, boxes, gt_boxes, gt_classes, size).numpy())
    assigned[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return assigned


def _cxcywh(boxes: Tensor) -> Tensor:
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], -1)


def _giou(a: Tensor, b: Tensor) -> Tensor:
    area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    overlap = (torch.minimum(a[:, None, 2:], b[None, :, 2:]) - torch.maximum(a[:, None, :2], b[None, :, :2])).clamp(0)
    hull = torch.maximum(a[:, None, 2:], b[None, :, 2:]) - torch.minimum(a[:, None, :2], b[None, :, :2])
    intersection, enclosing = overlap[..., 0] * overlap[..., 1], hull[..., 0] * hull[..., 1]
    union = (area_a[:, None] + area_b[None] - intersection).clamp(min=1e-6)
    return intersection / union - (enclosing - union) / enclosing.clamp(min=1e-6)


def rule(matcher, x: Image) -> Tensor:
    return assign(x.logits, x.boxes, x.gts, x.classes, x.size)
