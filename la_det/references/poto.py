"""DeFCN's label assignments on dense [G, R] matrices, one image at a time, as the official code does them.

Functions take ground truths [G, 4] and [G] of one image and return the matched ground truth of each location [R], -1
for background.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from la_det.matchers import FCOS, POTO, ForegroundLoss, OneToOneAnchor, OneToOneCenter, POTOAux
from la_det.references.image import Image

SizeRanges = Sequence[tuple[float, float]]
SIZE_RANGES: SizeRanges = ((-1, 64), (64, 128), (128, 256), (256, 512), (512, float("inf")))


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


def in_range(points: Tensor, levels: Tensor, gts: Tensor, size_ranges: SizeRanges) -> Tensor:
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


def fcos(
    points: Tensor,
    strides: Tensor,
    levels: Tensor,
    gts: Tensor,
    radius: float = 1.5,
    size_ranges: SizeRanges = SIZE_RANGES,
    margin: float = 0.0,
    inset: Tensor | None = None,
) -> Tensor:
    """FCOS: a location gets the smallest of the ground truths whose region and size range contain it.

    It lies more than `margin` pixels inside. Distances are those to the sides of the boxes `inset` [G, 4], by default
    the ground truths.
    """
    inset = gts if inset is None else inset
    eligible = omega(points, strides, inset, radius) & in_range(points, levels, inset, size_ranges)
    eligible &= distances(points, inset).amin(-1) > margin
    return largest_wins((-area(gts)[:, None]).masked_fill(~eligible, -torch.inf))


def anchor(anchors: Tensor, gts: Tensor) -> Tensor:
    """Each ground truth's anchor of largest IoU."""
    return largest_wins(only_first_best(iou_matrix(gts, anchors)))


def center(points: Tensor, levels: Tensor, gts: Tensor, size_ranges: SizeRanges = SIZE_RANGES) -> Tensor:
    """Each ground truth's nearest location of every level, in the size range."""
    to_center = (points[None].double() - ((gts[:, :2].double() + gts[:, 2:].double()) / 2)[:, None]).square().sum(-1)
    nearest = torch.zeros_like(to_center, dtype=torch.bool)
    for level in levels.unique():
        masked = to_center.masked_fill(levels != level, torch.inf)
        for row, distance in zip(nearest, masked, strict=True):
            row[int((distance == distance.min()).int().argmax())] = True
    eligible = nearest & in_range(points, levels, gts, size_ranges)
    return largest_wins((-area(gts)[:, None]).masked_fill(~eligible, -torch.inf))


def foreground_cost(
    logits: Tensor, boxes: Tensor, gts: Tensor, classes: Tensor, alpha: float = 0.25, box_weight: float = 2.0
) -> Tensor:
    """[G, R] the training loss of each pair, from class logits [R, K] and predicted boxes [R, 4]."""
    one_hot = torch.nn.functional.one_hot(classes, logits.shape[1]).to(logits.dtype)[:, None]  # [G, 1, K]
    p = logits.sigmoid()[None]
    bce = torch.nn.functional.binary_cross_entropy_with_logits(
        logits[None].expand(len(gts), -1, -1), one_hot.expand(-1, len(logits), -1), reduction="none"
    )
    p_t = p * one_hot + (1 - p) * (1 - one_hot)
    focal = (alpha * one_hot + (1 - alpha) * (1 - one_hot)) * (1 - p_t) ** 2 * bce
    return focal.sum(-1) + box_weight * (1 - giou_matrix(gts, boxes))


def quality(p: Tensor, boxes: Tensor, gts: Tensor, classes: Tensor, alpha: float = 0.8) -> Tensor:
    """[G, R] POTO's q, from probabilities [R, K] and predicted boxes [R, 4]."""
    return p.T[classes] ** (1 - alpha) * iou_matrix(gts, boxes) ** alpha


def hungarian(value: Tensor) -> Tensor:
    """SciPy on the whole [G, R] matrix, maximising."""
    matched = torch.full((value.shape[1],), -1)
    rows, columns = linear_sum_assignment(value.double().numpy(), maximize=True)
    matched[torch.from_numpy(columns)] = torch.from_numpy(rows)
    return matched


def one_to_one(value: Tensor, region: Tensor, outside: float, drop: bool = False) -> Tensor:
    """`hungarian` with the value `outside` outside of the regions [G, R]; `drop` leaves out matches of this value."""
    value = value.masked_fill(~region, outside)
    matched = hungarian(value)
    if not drop:
        return matched
    found = (value > outside) & (torch.arange(len(value)).unsqueeze(1) == matched)
    return matched.where(found.any(0), -1)


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
        parts = []
        for level in levels.unique():
            here = torch.nonzero(levels == level).squeeze(1)
            order = np.argsort(-row[here].numpy(), kind="stable")[:topk]
            parts.append(here[torch.from_numpy(order)])
        candidates = torch.cat(parts)
        threshold = row[candidates].mean() + row[candidates].std()
        positive = candidates[(row[candidates] >= threshold) & inside_row[candidates]]
        kept_row[positive] = row[positive]
        if threshold > 0:
            margin = min(margin, float((row[candidates] - threshold).abs().min()))
    return largest_wins(kept), margin


def fcos_rule(matcher: FCOS, x: Image) -> Tensor:
    points, strides = x.place
    options = matcher.center_radius, matcher.size_ranges, matcher.margin, x.priors.inset(x.gts)
    return fcos(points, strides, x.priors.levels, x.gts, *options)


def poto_rule(matcher: POTO, x: Image) -> Tensor:
    q = quality(x.p, x.boxes, x.gts, x.classes, matcher.alpha)
    region = omega(*x.place, x.gts, matcher.center_radius)
    return one_to_one(q, region, matcher.outside, matcher.drop_unmatched) if matcher.hungarian else argmax(q, region)


def aux_rule(matcher: POTOAux, x: Image) -> Tensor:
    q = quality(x.p, x.boxes, x.gts, x.classes, matcher.alpha)
    return aux(q, x.priors.points, x.priors.levels, x.priors.inset(x.gts), matcher.topk)[0]


def anchor_rule(matcher: OneToOneAnchor, x: Image) -> Tensor:
    return anchor(x.anchors, x.gts)


def center_rule(matcher: OneToOneCenter, x: Image) -> Tensor:
    return center(x.priors.points, x.priors.levels, x.gts, matcher.size_ranges)


def foreground_loss_rule(matcher: ForegroundLoss, x: Image) -> Tensor:
    cost = foreground_cost(x.logits, x.boxes, x.gts, x.classes, matcher.alpha, matcher.box_weight)
    region = omega(*x.place, x.gts, matcher.center_radius)
    return one_to_one(-cost, region, -1e8, matcher.drop_unmatched)
