"""LLA on dense [G, R] tensors, ground truth by ground truth, as the official code does it."""

import torch
from torch import Tensor

from la_det.matchers import LLA
from la_det.references.image import Image

EPS = 1.1920929e-07


def costs(
    logits: Tensor,
    ltrb: Tensor,
    points: Tensor,
    boxes: Tensor,
    classes: Tensor,
    reg_weight: float = 1.5,
    alpha: float = 0.25,
) -> Tensor:
    """[G, R] joint costs of one image, from logits [R, K], predicted distances [R, 4] and points [R, 2]."""
    rows = []
    for (x1, y1, x2, y2), k in zip(boxes, classes.tolist(), strict=True):
        one_hot = torch.zeros_like(logits)
        one_hot[:, k] = 1
        p = logits.sigmoid()
        p_y = one_hot * p + (1 - one_hot) * (1 - p)
        weight = one_hot * alpha + (1 - one_hot) * (1 - alpha)
        bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, one_hot, reduction="none")
        cost_cls = (weight * (1 - p_y) ** 2 * bce).sum(1)

        x, y = points.T
        t = torch.stack([x - x1, y - y1, x2 - x, y2 - y], 1)
        low = torch.minimum(ltrb, t)
        intersection = (low[:, 0] + low[:, 2]).clamp(min=0) * (low[:, 1] + low[:, 3]).clamp(min=0)
        union = _area(ltrb) + _area(t) - intersection
        iou = intersection / union.clamp(min=EPS)
        rows.append(cost_cls + reg_weight * -iou.clamp(min=EPS).log() + 1000 * (t.amin(1) <= 0.01))
    return torch.stack(rows) if rows else logits.new_zeros(0, len(logits))


def assign(cost: Tensor, k: int = 10) -> tuple[Tensor, float]:
    """Matched ground truth of each location [R], -1 for background; and the smallest difference that decided."""
    matched = torch.full((cost.shape[1],), -1)
    margin = float("inf")
    if len(cost) == 0:
        return matched, margin
    k = min(k, cost.shape[1])
    takers = torch.zeros_like(cost, dtype=torch.bool)
    for g, row in enumerate(cost):
        order = row.argsort()
        takers[g, order[:k]] = True
        if k < len(row):
            margin = min(margin, float(row[order[k]] - row[order[k - 1]]))
    best = cost.amin(0)
    first = (cost == best).int().argmax(0)  # the first of equal ground truths
    takers_of = takers.sum(0)
    matched = torch.where(takers_of == 1, takers.int().argmax(0), torch.where(takers_of > 1, first, -1))
    to_next = (cost.masked_fill(cost == best, torch.inf).amin(0) - best)[takers_of > 1]
    return matched, min([margin, *to_next.tolist()])


def _area(v: Tensor) -> Tensor:
    return (v[:, 0] + v[:, 2]).clamp(min=0) * (v[:, 1] + v[:, 3]).clamp(min=0)


def rule(matcher: LLA, x: Image) -> Tensor:
    weights = matcher.reg_weight, matcher.alpha
    return assign(costs(x.logits, x.ltrb, x.priors.points, x.gts, x.classes, *weights), matcher.topk)[0]
