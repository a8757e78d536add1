"""ATSS, Dynamic ATSS and the other positive types of ATSS's code on dense [R, G] matrices, as that code does them.

Written in the coordinates of the official code: with `offset` 1, boxes are pixel-inclusive, their widths x2 - x1 + 1.
Float64 throughout, one image at a time.
"""

import torch
from torch import Tensor
from torchvision.ops import box_iou

from la_det.references.image import Image


def anchors(grid_sizes, strides, offset: int, size: float = 8.0) -> list[Tensor]:
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
    levels: list[Tensor], gts: Tensor, offset: int, predicted: Tensor | None = None, k: int = 9
) -> tuple[Tensor, Tensor | None, float]:
    """ATSS, or Dynamic ATSS if the predicted boxes [R, 4] are given.

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
    kept, margin = torch.full_like(u, -torch.inf), torch.inf
    for g, gt in enumerate(gts):
        candidates, start = [], 0
        for level in levels:
            order = distances(level, gt).sort(stable=True).indices[: min(k, len(level))]
            candidates.append(start + order)
            start += len(level)
        candidates = torch.cat(candidates)
        if len(candidates) < 2:
            continue
        t = a[candidates, g].mean() + a[candidates, g].std()
        if p is not None:
            t = t + p[candidates, g].mean() + p[candidates, g].std()
        inside = inside_by(everything[candidates], gt)
        positive = candidates[(u[candidates, g] >= t) & (inside > 0.01)]
        kept[positive, g] = u[positive, g]
        could_be = inside > 0
        margin = min(margin, float((inside - 0.01).abs().min()))
        if could_be.any():
            margin = min(margin, float((u[candidates, g] - t)[could_be].abs().min()))
    best, matched = kept.max(1)
    matched = torch.where(best > -torch.inf, matched, -1)
    if p is None:
        return matched, None, margin
    quality = p[torch.arange(len(p)), matched]
    return matched, torch.where(matched >= 0, quality, 0), margin


def topk(levels: list[Tensor], gts: Tensor, offset: int, k: int = 9) -> tuple[Tensor, float]:
    """POSITIVE_TYPE "TOPK": ground truth of each anchor [R], -1 for background; the smallest difference compared."""
    everything = torch.cat(levels)
    a = iou(everything, gts, offset)
    d = torch.stack([distances(everything, gt) for gt in gts], 1)
    rank = a - d / d.max() / 1000
    kept, margin = torch.full_like(a, -torch.inf), torch.inf
    for g, gt in enumerate(gts):
        ranked, order = rank[:, g].sort(descending=True, stable=True)
        chosen, inside = order[:k], inside_by(everything[order[:k]], gt)
        margin = min(margin, float(ranked[k - 1] - ranked[k]), float((inside - 0.01).abs().min()))
        chosen = chosen[inside > 0.01]
        kept[chosen, g] = a[chosen, g]
    best, matched = kept.max(1)
    return torch.where(best > -torch.inf, matched, -1), margin


def max_iou(a: Tensor, foreground: float, background: float, to_that: bool, valid: Tensor | None = None) -> Tensor:
    """RetinaNet's rule on IoUs [R, G]: ground truth of each anchor, -1 background, -2 in no loss.

    A ground truth's best anchors are positive. With `to_that` they go to this ground truth, the last one of several, as
    in the RetinaNet of DATE. Otherwise they go to their own best ground truth, as in ATSS's code.
    """
    valid = torch.ones(len(a), dtype=torch.bool) if valid is None else valid
    matched = torch.full((len(a),), -1)
    best, own = a.max(1)
    matched[best >= background] = -2
    matched[best >= foreground] = own[best >= foreground]
    for g in range(a.shape[1]):
        largest = a[valid, g].max()
        if largest > 0:
            attained = (a[:, g] == largest) & valid
            matched[attained] = g if to_that else own[attained]
    matched[~valid] = -2
    return matched


def atss_rule(matcher, x: Image) -> Tensor:
    return atss(x.anchors(), x.gts.double(), 0)[0]


def dynamic_atss_rule(matcher, x: Image) -> Tensor:
    return atss(x.anchors(), x.gts.double(), 0, x.boxes.double())[0]


def max_iou_rule(matcher, x: Image) -> Tensor:
    return max_iou(box_iou(x.priors.boxes, x.gts), matcher.foreground, matcher.background, matcher.reassign_best)
