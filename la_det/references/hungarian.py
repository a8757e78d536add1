"""DETR's cost on the dense matrix, as the official code of DATE and OneNet computes it, and their rules."""

from dataclasses import asdict

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from la_det.matchers import Hungarian, OneNet
from la_det.references.image import Image


def cost_matrix(
    p: Tensor,
    boxes: Tensor,
    gt_boxes: Tensor,
    gt_classes: Tensor,
    size: tuple[int, int],
    *,
    class_weight: float = 2.0,
    l1_weight: float = 5.0,
    giou_weight: float = 2.0,
    corners: bool = False,
    eps: float = 1e-12,
) -> Tensor:
    """K [R, G] of one image from probabilities [R, K], boxes [R, 4] and an image of (height, width)."""
    positive = -0.25 * (1 - p) ** 2 * torch.log(p + eps)
    negative = -0.75 * p**2 * torch.log(1 - p + eps)
    cls = class_weight * (positive - negative)[:, gt_classes]

    scale = torch.tensor([size[1], size[0], size[1], size[0]], dtype=torch.float32)
    a, b = boxes / scale, gt_boxes / scale
    l1 = torch.cdist(a, b, p=1) if corners else torch.cdist(_cxcywh(a), _cxcywh(b), p=1)
    return cls + l1_weight * l1 - giou_weight * _giou(boxes, gt_boxes)


def assign(cost: Tensor) -> Tensor:
    """Index of the ground truth of each location [R], -1 for none."""
    assigned = torch.full((len(cost),), -1)
    rows, columns = linear_sum_assignment(cost.numpy())
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


def _costs(matcher: Hungarian | OneNet, x: Image) -> Tensor:
    return cost_matrix(x.p, x.boxes, x.gts, x.classes, x.size, **asdict(matcher.cost))


def rule(matcher: Hungarian, x: Image) -> Tensor:
    return assign(_costs(matcher, x))


def minimum_rule(matcher: OneNet, x: Image) -> Tensor:
    """OneNet's first rule; of several ground truths at one location the last one, whose class it has."""
    assigned = torch.full((len(x.boxes),), -1)
    for g, column in enumerate(_costs(matcher, x).T):
        assigned[column.argmin()] = g
    return assigned
