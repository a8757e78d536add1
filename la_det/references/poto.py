"""DeFCN's label assignments on dense [G, R] matrices, one image at a time, as the official code does them.

Functions take ground truths [G, 4] and [G] of one image and return the matched ground truth of each location [R], -1
for background.
"""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from la_det.references.image import Image

SIZE_RANGES = ((-1, 64), (64, 128), (128, 256), (256, 512), (512, float("inf")))


def area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def intersection(a: Tensor, b: Tensor) -> Tensor:
    width = torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])
    height = torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])
    return width.clamp(min=0) * height.clamp(min=0)


def iou_matrix(gts: Tensor, boxes: Tensor) -> Tensor:
    """IoUs [G, R]."""
    a, b = gts[:, None], boxes[None]
    inter = intersection(a, b)
    return inter / (area(a) + area(b) - inter).clamp(min=torch.finfo(torch.float32).eps)


def giou_matrix(gts: Tensor, boxes: Tensor) -> Tensor:
    """Generalised IoUs [G, R]."""
    a, b, eps = gts[:, None], boxes[None], torch.finfo(torch.float32).eps
    inter = intersection(a, b)
    union = area(a) + area(b) - inter
    width = torch.maximum(a[..., 2], b[..., 2]) - torch.minimum(a[..., 0], b[..., 0])
    height = torch.maximum(a[..., 3], b[..., 3]) - torch.minimum(a[..., 1], b[..., 1])
    enclosing = width * height
    return inter / union.clamp(min=eps) - (enclosing - union) / enclosing.clamp(min=eps)


def distances(points: Tensor, gts: Tensor) -> Tensor:
    """Left, top, right, bottom distances [G, R, 4]."""
    x, y = points[:, 0], points[:, 1]
    g = gts.unsqueeze(-1)
    return torch.stack([x - g[:, 0], y - g[:, 1], g[:, 2] - x, g[:, 3] - y], -1)


def omega(points: Tensor, strides: Tensor, gts: Tensor, radius: float) -> Tensor:
    """[G, R] the candidate region: strictly inside the box and the square around its centre."""
    region = gts[:, None].expand(-1, len(points), -1)
    if radius > 0:
        half = (radius * strides)[None, :, None]
        centers = ((gts[:, :2] + gts[:, 2:]) / 2)[:, None]
        lower = torch.maximum(centers - half, region[..., :2])
        region = torch.cat([lower, torch.minimum(centers + half, region[..., 2:])], -1)
    return ((points > region[..., :2]) & (points < region[..., 2:])).all(-1)


def in_range(points: Tensor, levels: Tensor, gts: Tensor, size_ranges=SIZE_RANGES) -> Tensor:
    """[G, R] whether max(l, t, r, b) lies in the size range of the location's level."""
    reach = distances(points, gts).amax(-1)
    low, high = torch.tensor(size_ranges)[levels].unbind(-1)
    return (low <= reach) & (reach <= high)


def largest_wins(value: Tensor) -> Tensor:
    """Each location's ground truth of largest value; a value of -inf is no candidate."""
    if len(value) == 0:
        return torch.full((value.shape[1],), -1)
    best, gt = value.max(0)
    # max may give any of several equal entries: take the first.
    gt = (value == best).int().argmax(0)
    return torch.where(best > -torch.inf, gt, -1)


def only_first_best(value: Tensor) -> Tensor:
    """Keeps the first of each row's largest entries; -inf elsewhere."""
    kept = torch.full_like(value, -torch.inf)
    for row, kept_row in zip(value, kept, strict=True):
        index = int((row == row.max()).int().argmax())
        kept_row[index] = row[index]
    return kept


def fcos(points, strides, levels, gts, radius=1.5, size_ranges=SIZE_RANGES) -> Tensor:
    """FCOS: a location gets the smallest of the ground truths whose region and size range contain it."""
    eligible = omega(points, strides, gts, radius) & in_range(points, levels, gts, size_ranges)
    return largest_wins((-area(gts)[:, None]).masked_fill(~eligible, -torch.inf))


def anchor(anchors, gts) -> Tensor:
    """Each ground truth's anchor of largest IoU."""
    return largest_wins(only_first_best(iou_matrix(gts, anchors)))


def center(points, levels, gts, size_ranges=SIZE_RANGES) -> Tensor:
    """Each ground truth's nearest location of every level, in the size range."""
    to_center = (points[None].double() - ((gts[:, :2].double() + gts[:, 2:].double()) / 2)[:, None]).square().sum(-1)
    nearest = torch.zeros_like(to_center, dtype=torch.bool)
    for level in levels.unique():
        masked = to_center.masked_fill(levels != level, torch.inf)
        for row, distance in zip(nearest, masked, strict=True):
            row[int((distance == distance.min()).int().argmax())] = True
    eligible = nearest & in_range(points, levels, gts, size_ranges)
    return largest_wins((-area(gts)[:, None]).masked_fill(~eligible, -torch.inf))


def foreground_cost(logits, boxes, gts, classes, alpha=0.25, box_weight=2.0) -> Tensor:
    """[G, R] the training loss of each pair, from class logits [R, K] and predicted boxes [R, 4]."""
    one_hot = torch.nn.functional.one_hot(classes, logits.shape[1]).to(logits.dtype)[:, None]  # [G, 1, K]
    p = logits.sigmoid()[None]
    bce = torch.nn.functional.binary_cross_entropy_with_logits(
        logits[None].expand(len(gts), -1, -1), one_hot.expand(-1, len(logits), -1), reduction="none"
    )
    p_t = p * one_hot + (1 - p) * (1 - one_hot)
    focal = (alpha * one_hot + (1 - alpha) * (1 - one_hot)) * (1 - p_t) ** 2 * bce
    return focal.sum(-1) + box_weight * (1 - giou_matrix(gts, boxes))


def quality(p, boxes, gts, classes, alpha=0.8) -> Tensor:
    """[G, R] POTO's q, from probabilities [R, K] and predicted boxes [R, 4]."""
    return p.T[classes] ** (1 - alpha) * iou_matrix(gts, boxes) ** alpha


def hungarian(value: Tensor) -> Tensor:
    """SciPy on the whole [G, R] matrix, maximising."""
    matched = torch.full((value.shape[1],), -1)
    rows, columns = linear_sum_assignment(value.double().numpy(), maximize=True)
    matched[torch.from_numpy(columns)] = torch.from_numpy(rows)
    return matched


def argmax(q: Tensor, region: Tensor) -> Tensor:
    """Each ground truth's best location in its region, without a global assignment."""
    if len(q) == 0:
        return largest_wins(q)
    kept = only_first_best(q.masked_fill(~region, -1))
    return largest_wins(kept.masked_fill(kept == -1, -torch.inf))


def aux(q: Tensor, points: Tensor, levels: Tensor, gts: Tensor, topk: int = 9) -> tuple[Tensor, float]:
    """ATSS's rule on q, ties to the first location; and the smallest difference in a comparison with a threshold."""
    kept, margin = torch.full_like(q, -torch.inf), torch.inf
    inside = (distances(points, gts) > 0).all(-1)
    for row, kept_row, inside_row in zip(q, kept, inside, strict=True):
        candidates = []
        for level in levels.unique():
            here = torch.nonzero(levels == level).squeeze(1)
            order = np.argsort(-row[here].numpy(), kind="stable")[:topk]
            candidates.append(here[torch.from_numpy(order)])
        candidates = torch.cat(candidates)
        threshold = row[candidates].mean() + row[candidates].std()
        positive = candidates[(row[candidates] >= threshold) & inside_row[candidates]]
        kept_row[positive] = row[positive]
        if threshold > 0:
            margin = min(margin, float((row[candidates] - threshold).abs().min()))
    return largest_wins(kept), margin


def fcos_rule(matcher, x: Image) -> Tensor:
    return fcos(*x.place, x.priors.levels, x.gts, matcher.center_radius)


def poto_rule(matcher, x: Image) -> Tensor:
    q = quality(x.p, x.boxes, x.gts, x.classes)
    region = omega(*x.place, x.gts, matcher.center_radius)
    return hungarian(q.masked_fill(~region, matcher.outside)) if matcher.hungarian else argmax(q, region)


def aux_rule(matcher, x: Image) -> Tensor:
    return aux(quality(x.p, x.boxes, x.gts, x.classes), x.priors.points, x.priors.levels, x.gts)[0]


def anchor_rule(matcher, x: Image) -> Tensor:
    return anchor(x.priors.boxes, x.gts)


def center_rule(matcher, x: Image) -> Tensor:
    return center(x.priors.points, x.priors.levels, x.gts)


def foreground_loss_rule(matcher, x: Image) -> Tensor:
    cost = foreground_cost(x.logits, x.boxes, x.gts, x.classes)
    return hungarian(-cost.masked_fill(~omega(*x.place, x.gts, matcher.center_radius), 1e8))
