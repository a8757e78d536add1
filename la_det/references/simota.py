"""SimOTA on dense [G, R] tensors, image by image, as the official code does it."""

import torch
from torch import Tensor

from la_det.matchers import SimOTA
from la_det.references.image import Image
from la_det.references.poto import distances, iou_matrix


def regions(points: Tensor, strides: Tensor, gts: Tensor, matcher: SimOTA) -> tuple[Tensor, Tensor]:
    """Each ground truth's own locations [G, R], and the valid ones [R]."""
    middle = ((gts[:, :2] + gts[:, 2:]) / 2)[:, None]
    half = (matcher.center_radius * strides)[None, :, None]
    in_square = ((points > middle - half) & (points < middle + half)).all(-1)
    if not matcher.inside_box:
        return in_square, in_square.any(0)
    in_box = distances(points, gts).amin(-1) > 0
    return in_square & in_box, (in_square | in_box).any(0)


def class_costs(q: Tensor, classes: Tensor) -> Tensor:
    """[G, R] binary cross entropy over all classes, from probabilities [R, K]."""
    rows = []
    for k in classes.tolist():
        target = torch.zeros_like(q)
        target[:, k] = 1
        rows.append(torch.nn.functional.binary_cross_entropy(q, target, reduction="none").sum(1))
    return torch.stack(rows) if rows else q.new_zeros(0, len(q))


def assign(
    q: Tensor, boxes: Tensor, points: Tensor, strides: Tensor, gts: Tensor, classes: Tensor, matcher: SimOTA
) -> Tensor:
    """Matched ground truth of each location [R], -1 for background."""
    matched = torch.full((len(points),), -1)
    own, valid = regions(points, strides, gts, matcher)
    if len(gts) == 0 or not valid.any():
        return matched
    iou = iou_matrix(gts, boxes)
    k = iou[:, valid].topk(min(matcher.topk, int(valid.sum())), 1).values.sum(1).int().clamp(min=1)
    cost = class_costs(q, classes) - matcher.box_weight * (iou + matcher.iou_eps).log()
    # What is not its own costs more than anything that is; in double precision no costs become equal by that.
    cost = cost.double() + 1e6 * ~own
    cost[:, ~valid] = torch.inf
    takers = torch.zeros_like(own)
    for g, row in enumerate(cost):
        takers[g, row.argsort(stable=True)[: min(int(k[g]), int(valid.sum()))]] = True
    number = takers.sum(0)
    best = (cost == cost.amin(0)).int().argmax(0)  # the first of equal ground truths
    return torch.where(number == 1, takers.int().argmax(0), torch.where(number > 1, best, -1))


def rule(matcher: SimOTA, x: Image) -> Tensor:
    return assign(x.p, x.boxes, *x.place, x.gts, x.classes, matcher)
