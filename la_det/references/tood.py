"""TOOD's and YOLO's task-aligned assignment on dense [G, R] matrices, one image at a time, as the official codes do it.

`tood` and `tal` return the ground truth of each location [R], -1 for background, and its soft target [R], 0 there.
"""

import math

import torch
from torch import Tensor

from la_det.matchers import TAL, TOOD
from la_det.references.image import Image
from la_det.references.poto import largest_wins


def overlaps(gts: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[G, R] areas of intersection and union; [G, R] squared diagonal of the enclosing box."""
    a, b = gts[:, None], boxes[None]
    lower, upper = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    intersection = (upper - lower).clamp(min=0).prod(-1)
    areas = [(x[..., 2:] - x[..., :2]).clamp(min=0).prod(-1) for x in (a, b)]
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    return intersection, areas[0] + areas[1] - intersection, hull.square().sum(-1)


def iou(gts: Tensor, boxes: Tensor) -> Tensor:
    """[G, R]."""
    intersection, union, _ = overlaps(gts, boxes)
    return intersection / union.clamp(min=1e-6)


def ciou(gts: Tensor, boxes: Tensor, eps: float = 1e-7) -> Tensor:
    """[G, R]."""
    intersection, union, diagonal = overlaps(gts, boxes)
    value = intersection / (union + eps)
    a, b = gts[:, None], boxes[None]
    distance = ((b[..., :2] + b[..., 2:] - a[..., :2] - a[..., 2:]).square().sum(-1)) / 4
    angles = [torch.atan((x[..., 2] - x[..., 0]) / (x[..., 3] - x[..., 1] + eps)) for x in (a, b)]
    v = 4 / math.pi**2 * (angles[0] - angles[1]).square()
    return value - distance / (diagonal + eps) - v * v / (v - value + 1 + eps)


def inside_by(points: Tensor, gts: Tensor) -> Tensor:
    """[G, R] distance from points to the nearest side of the ground truths, negative outside."""
    return torch.cat([points[None] - gts[:, None, :2], gts[:, None, 2:] - points[None]], -1).amin(-1)


def tood(
    p: Tensor,
    boxes: Tensor,
    points: Tensor,
    valid: Tensor,
    gts: Tensor,
    classes: Tensor,
    k: int = 13,
    alpha: float = 1.0,
    beta: float = 6.0,
    margin: float = 0.01,
) -> tuple[Tensor, Tensor]:
    """From probabilities [R, K], predicted boxes [R, 4], points [R, 2] and which locations take part [R]."""
    if len(gts) == 0:
        return torch.full((len(p),), -1), torch.zeros(len(p))
    u = iou(gts, boxes)
    t = p.T[classes] ** alpha * u**beta * valid
    candidate = torch.zeros_like(t, dtype=torch.bool)
    candidate.scatter_(1, t.topk(min(k, t.shape[1])).indices, True)
    positive = candidate & (t > 0) & (inside_by(points, gts) > margin)
    return targets(largest_wins(u.masked_fill(~positive, -torch.inf)), t, u, 1e-7)


def tal(
    p: Tensor,
    boxes: Tensor,
    points: Tensor,
    gts: Tensor,
    classes: Tensor,
    k: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
) -> tuple[Tensor, Tensor]:
    """From probabilities [R, K], predicted boxes [R, 4] and points [R, 2]."""
    if len(gts) == 0:
        return torch.full((len(p),), -1), torch.zeros(len(p))
    inside = inside_by(points, gts) > 1e-9
    u = ciou(gts, boxes).clamp(min=0) * inside
    t = p.T[classes] ** alpha * u**beta
    taken = torch.zeros_like(inside).scatter_(1, t.topk(min(k, t.shape[1])).indices, True) & (t > 0)
    matched = torch.where(taken.sum(0) > 1, largest_wins(u), taken.int().argmax(0))
    return targets(torch.where(taken.any(0), matched, -1), t, u, 1e-9)


def targets(matched: Tensor, t: Tensor, u: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`matched` [R] and soft targets [R], from t and u [G, R]."""
    own = torch.arange(len(t))[:, None] == matched
    largest_t, largest_u = ((x * own).amax(1, keepdim=True) for x in (t, u))
    return matched, (t * own / (largest_t + eps) * largest_u).sum(0)


def tood_rule(matcher: TOOD, x: Image) -> Tensor:
    valid, options = x.begins_inside(matcher.pad_to), (matcher.topk, matcher.alpha, matcher.beta, matcher.margin)
    return tood(x.p, x.boxes, x.priors.points, valid, x.gts, x.classes, *options)[0]


def tal_rule(matcher: TAL, x: Image) -> Tensor:
    options = matcher.topk, matcher.alpha, matcher.beta
    return tal(x.p, x.boxes, x.priors.points, x.gts, x.classes, *options)[0]
