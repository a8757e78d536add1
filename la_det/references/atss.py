"""ATSS, Dynamic ATSS and the other positive types of ATSS's code on dense [R, G] matrices, as that code does them.

Written in the coordinates of the official code: with `offset` 1, boxes are pixel-inclusive, their widths x2 - x1 + 1.
Float64 throughout, one image at a time.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torchvision.ops import box_iou

from la_det.matchers import ATSS, DynamicATSS, MaxIoU
from la_det.references.image import NO_LOSS, Image


def anchors(
    grid_sizes: Sequence[tuple[int, int]], strides: Sequence[int], offset: int, size: float = 8.0
) -> list[Tensor]:
    """Per level the anchors [R_l, 4]: squares of `size` strides around ((j + 0.5) s, (i + 0.5) s)."""
    levels = []
    for (h, w), s in zip(grid_sizes, strides, strict=True):
        half = (size * s - offset) / 2
        cells = [((j + 0.5) * s, (i + 0.5) * s) for i in range(h) for j in range(w)]
        levels.append(torch.tensor([[x - half, y - half, x + half, y + half] for x, y in cells], dtype=torch.float64))
    return levels


def iou(a: Tensor, b: Tensor, offset: int) -> Tensor:
    """[R, G] IoU of boxes [R, 4] and [G, 4]."""
    a, b = a[:, None], b[None]
    width = (torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0]) + offset).clamp(min=0)
    height = (torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1]) + offset).clamp(min=0)
    area_a = (a[..., 2] - a[..., 0] + offset) * (a[..., 3] - a[..., 1] + offset)
    area_b = (b[..., 2] - b[..., 0] + offset) * (b[..., 3] - b[..., 1] + offset)
    return width * height / (area_a + area_b - width * height).clamp(min=1e-9)


def inside_by(anchors: Tensor, gt: Tensor) -> Tensor:
    """[R] distance from anchors' centres to the nearest side of a ground truth, negative outside."""
    x, y = (anchors[:, 0] + anchors[:, 2]) / 2, (anchors[:, 1] + anchors[:, 3]) / 2
    return torch.stack([x - gt[0], y - gt[1], gt[2] - x, gt[3] - y], 1).amin(1)


def distances(anchors: Tensor, gt: Tensor) -> Tensor:
    """[R] distance of the centres."""
    x, y = (anchors[:, 0] + anchors[:, 2]) / 2, (anchors[:, 1] + anchors[:, 3]) / 2
    return ((x - (gt[0] + gt[2]) / 2) ** 2 + (y - (gt[1] + gt[3]) / 2) ** 2).sqrt()


def atss(
    levels: Sequence[Tensor],
    gts: Tensor,
    offset: int,
    predicted: Tensor | None = None,
    k: int = 9,
    margin: float = 0.01,
    valid: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, float]:
    """ATSS, or Dynamic ATSS if the predicted boxes [R, 4] are given.

    Args:
        k: candidates of each level.
        margin: positives lie more than this many pixels inside.
        valid: [R] bool, the anchors that take part; by default all.

    Returns:
        Ground truth of each anchor [R], -1 for background; the predicted IoU with it, 0 for background; and the
        smallest difference in any comparison with a threshold.
    """
    everything = torch.cat(levels)
    if len(gts) == 0:
        return torch.full((len(everything),), -1), torch.zeros(len(everything)), torch.inf
    a = iou(everything, gts, offset)
    p = None if predicted is None else iou(predicted, gts, offset)
    u = a if p is None else a + p
    kept, least = torch.full_like(u, -torch.inf), torch.inf
    valid = torch.ones(len(everything), dtype=torch.bool) if valid is None else valid
    for g, gt in enumerate(gts):
        parts, start = [], 0
        for level in levels:
            order = start + distances(level, gt).sort(stable=True).indices
            parts.append(order[valid[order]][:k])
            start += len(level)
        candidates = torch.cat(parts)
        if len(candidates) < 2:
            continue
        t = a[candidates, g].mean() + a[candidates, g].std()
        if p is not None:
            t = t + p[candidates, g].mean() + p[candidates, g].std()
        inside = inside_by(everything[candidates], gt)
        positive = candidates[(u[candidates, g] >= t) & (inside > margin)]
        kept[positive, g] = u[positive, g]
        could_be = inside > 0
        least = min(least, float((inside - margin).abs().min()))
        if could_be.any():
            least = min(least, float((u[candidates, g] - t)[could_be].abs().min()))
    best, matched = kept.max(1)
    matched = torch.where(best > -torch.inf, matched, -1)
    if p is None:
        return matched, None, least
    quality = p[torch.arange(len(p)), matched]
    return matched, torch.where(matched >= 0, quality, 0), least


def topk(levels: Sequence[Tensor], gts: Tensor, offset: int, k: int = 9, margin: float = 0.01) -> tuple[Tensor, float]:
    """POSITIVE_TYPE "TOPK": ground truth of each anchor [R], -1 for background; the smallest difference compared."""
    everything = torch.cat(levels)
    a = iou(everything, gts, offset)
    d = torch.stack([distances(everything, gt) for gt in gts], 1)
    rank = a - d / d.max() / 1000
    kept, least = torch.full_like(a, -torch.inf), torch.inf
    for g, gt in enumerate(gts):
        ranked, order = rank[:, g].sort(descending=True, stable=True)
        chosen, inside = order[:k], inside_by(everything[order[:k]], gt)
        least = min(least, float(ranked[k - 1] - ranked[k]), float((inside - margin).abs().min()))
        chosen = chosen[inside > margin]
        kept[chosen, g] = a[chosen, g]
    best, matched = kept.max(1)
    return torch.where(best > -torch.inf, matched, -1), least


def max_iou(a: Tensor, foreground: float, background: float, to_that: bool, valid: Tensor | None = None) -> Tensor:
    """RetinaNet's rule on IoUs [R, G]: ground truth of each anchor, -1 for background, NO_LOSS.

    A ground truth's best anchors are positive. With `to_that` they go to this ground truth, the last one of several, as
    in the RetinaNet of DATE. Otherwise they go to their own best ground truth, as in ATSS's code.
    """
    valid = torch.ones(len(a), dtype=torch.bool) if valid is None else valid
    matched = torch.full((len(a),), -1)
    best, own = torch.cat([a, a.new_zeros(len(a), 1)], 1).max(1)  # also without ground truths
    matched[best >= background] = NO_LOSS
    matched[best >= foreground] = own[best >= foreground]
    for g in range(a.shape[1]):
        largest = a[valid, g].max()
        if largest > 0:
            attained = (a[:, g] == largest) & valid
            matched[attained] = g if to_that else own[attained]
    matched[~valid] = NO_LOSS
    return matched


def atss_rule(matcher: ATSS, x: Image) -> Tensor:
    valid = x.begins_inside(matcher.pad_to)
    return _atss(matcher, x, valid=valid).masked_fill(~valid, NO_LOSS)


def dynamic_atss_rule(matcher: DynamicATSS, x: Image) -> Tensor:
    return _atss(matcher, x, predicted=_in_code(x.boxes, x))


def _atss(matcher: ATSS | DynamicATSS, x: Image, **options: Tensor) -> Tensor:
    starts, k = x.priors.level_starts, matcher.topk * x.priors.per_cell
    levels = _in_code(x.anchors, x).split([end - start for start, end in pairwise(starts)])
    return atss(levels, _in_code(x.gts, x), x.priors.box_offset, k=k, margin=matcher.margin, **options)[0]


def _in_code(boxes: Tensor, x: Image) -> Tensor:
    """Boxes [..., 4] in the code's coordinates."""
    return boxes.double() - torch.tensor([0, 0, x.priors.box_offset, x.priors.box_offset])


def max_iou_rule(matcher: MaxIoU, x: Image) -> Tensor:
    thresholds = matcher.foreground, matcher.background
    valid = x.begins_inside(matcher.pad_to)
    matched = max_iou(box_iou(x.anchors, x.gts), *thresholds, matcher.reassign_best, valid)
    if matcher.margin is not None:
        for g, gt in enumerate(x.priors.inset(x.gts)):
            matched[(matched == g) & (inside_by(x.anchors, gt) <= matcher.margin)] = NO_LOSS
    return matched
