"""o2f on dense tensors [R, G] and [R, K], ground truth by ground truth, as the official code does it."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from la_det.matchers import O2F
from la_det.references.image import PROGRESS, Image


def assign(
    cls: Tensor,
    ctr: Tensor,
    boxes: Tensor,
    points: Tensor,
    strides: Tensor,
    gt_boxes: Tensor,
    gt_classes: Tensor,
    centers: Tensor,
    largest_target: float,
    topk: int = 7,
    alpha: float = 0.8,
    center_radius: float = 1.5,
    soft_weight: float = 0.4,
) -> tuple[Tensor, Tensor, Tensor]:
    """For one image: ground truth of each location [R] (-1: none), target t [R] and weight w [R] of the location.

    Inputs are logits [R, K] and [R], predicted boxes [R, 4], points [R, 2], strides [R] and regions' centres [G, 2].
    """
    num_priors, num_gts = len(cls), len(gt_boxes)
    p, q = torch.zeros(num_priors, num_gts), torch.zeros(num_priors, num_gts)
    for g in range(num_gts):
        p[:, g] = cls[:, gt_classes[g]].sigmoid() * ctr.sigmoid()
        radius = center_radius * strides.unsqueeze(1)
        lower = torch.maximum(centers[g] - radius, gt_boxes[g, :2])
        upper = torch.minimum(centers[g] + radius, gt_boxes[g, 2:])
        inside = torch.cat([points - lower, upper - points], 1).amin(1) > 0
        iou = _iou(boxes, gt_boxes[g]) * inside
        q[:, g] = p[:, g] ** (1 - alpha) * iou**alpha

    selected = torch.zeros(num_priors, num_gts, dtype=torch.bool)
    for g in range(num_gts):
        for m in q[:, g].sort(descending=True, stable=True).indices[:topk]:
            selected[m, g] = q[m, g] > 0
    matched, t, w = torch.full((num_priors,), -1), torch.zeros(num_priors), torch.zeros(num_priors)
    for m in selected.any(1).nonzero()[:, 0]:
        matched[m] = (q[m] * selected[m]).argmax()
    for g in range(num_gts):
        mine = (matched == g).nonzero()[:, 0]
        if len(mine) == 0:
            continue
        certain = mine[q[mine, g].argmax()]
        soft = mine[mine != certain]
        t[certain] = w[certain] = 1
        if len(soft) > 0:
            t[soft] = largest_target * p[soft, g] / p[soft, g].max()
            w[soft] = soft_weight
    return matched, t, w


def losses(
    cls: Tensor,
    ctr: Tensor,
    boxes: Tensor,
    points: Tensor,
    gt_boxes: Tensor,
    gt_classes: Tensor,
    matched: Tensor,
    t: Tensor,
    w: Tensor,
) -> tuple[Tensor, Tensor, int, Tensor]:
    """For one image: the sums of both losses before division, |P|, and the sum of the centerness weights."""
    z = cls.sigmoid() * ctr.sigmoid().unsqueeze(1)
    entries = 0.75 * z**2 * F.binary_cross_entropy(z, torch.zeros_like(z), reduction="none")
    positive = (matched >= 0).nonzero()[:, 0]
    own = gt_classes[matched[positive]]
    entries = entries.clone()
    entries[positive, own] = w[positive] * F.binary_cross_entropy(z[positive, own], t[positive], reduction="none")
    box_sum, u_sum = boxes.sum() * 0, torch.zeros(())
    for m in positive:
        gt = gt_boxes[matched[m]]
        left, top = (points[m] - gt[:2]).tolist()
        right, bottom = (gt[2:] - points[m]).tolist()
        u = math.sqrt(min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom))
        box_sum = box_sum + u * (1 - _giou(boxes[m], gt))
        u_sum = u_sum + u
    return entries.sum(), box_sum, len(positive), u_sum


def _iou(boxes: Tensor, gt: Tensor) -> Tensor:
    sides = (torch.minimum(boxes[:, 2:], gt[2:]) - torch.maximum(boxes[:, :2], gt[:2])).clamp(min=0)
    intersection = sides[:, 0] * sides[:, 1]
    union = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (gt[2:] - gt[:2]).prod() - intersection
    return intersection / union.clamp(min=1e-6)


def _giou(box: Tensor, gt: Tensor) -> Tensor:
    sides = (torch.minimum(box[2:], gt[2:]) - torch.maximum(box[:2], gt[:2])).clamp(min=0)
    union = ((box[2:] - box[:2]).prod() + (gt[2:] - gt[:2]).prod() - sides.prod()).clamp(min=1e-6)
    enclosing = (torch.maximum(box[2:], gt[2:]) - torch.minimum(box[:2], gt[:2])).prod().clamp(min=1e-6)
    return sides.prod() / union - (enclosing - union) / enclosing


def rule(matcher: O2F, x: Image) -> Tensor:
    centers = x.centroids if matcher.mask_centers else (x.gts[:, :2] + x.gts[:, 2:]) / 2
    options = matcher.topk, matcher.alpha, matcher.center_radius, matcher.soft_weight
    place = *x.place, x.gts, x.classes, centers
    return assign(x.logits, x.gates["quality"], x.boxes, *place, matcher.largest_soft_target(PROGRESS), *options)[0]
