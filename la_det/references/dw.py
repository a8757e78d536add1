"""DW on dense [R, G] and [R, K] tensors, ground truth by ground truth, as the official code does it."""

import torch
from torch import Tensor

from la_det.matchers import DW
from la_det.references.image import Image


def weights(
    cls: Tensor,
    obj: Tensor,
    boxes: Tensor,
    points: Tensor,
    strides: Tensor,
    gt_boxes: Tensor,
    gt_classes: Tensor,
    soft_prior: bool = True,
) -> tuple[Tensor, Tensor]:
    """w+ [R, G] and w- [R, K] of one image.

    Inputs are logits [R, K] and [R], predicted boxes [R, 4], points [R, 2] and strides [R].
    """
    q = cls.sigmoid() * obj.sigmoid().unsqueeze(1)
    w_pos = torch.zeros(len(cls), len(gt_boxes))
    w_neg = torch.ones_like(cls)
    for j, (gt, c) in enumerate(zip(gt_boxes, gt_classes.tolist(), strict=True)):
        distances = torch.cat([points - gt[:2], gt[2:] - points], 1)
        inside = (distances > 0).all(1)
        if not inside.any():
            continue
        d = (points - (gt[:2] + gt[2:]) / 2) / strides.unsqueeze(1)
        gaussian = torch.exp(-(d[:, 0] ** 2 + d[:, 1] ** 2) / (2 * 1.11**2))
        cp = inside * (gaussian if soft_prior else (gaussian > 0.3))

        iou, giou = _iou_giou(boxes, gt)
        t = q[:, c] * torch.exp(-5 * (1 - giou))
        w_pos[:, j] = cp * torch.exp(5 * t) * t / max((cp * torch.exp(3 * t) * t).sum(), 1e-12)

        u = iou[inside]
        f = 4 / 3 * (1 - u * u)
        low, high = f.min(), f.max().clamp(max=1)
        y = (f - low + 1e-12) / (high - low + 1e-12)
        w_neg[inside, c] = torch.where(u < 0.5, 1.0, y)
    return w_pos, w_neg


def losses(
    cls: Tensor, obj: Tensor, boxes: Tensor, gt_boxes: Tensor, gt_classes: Tensor, w_pos: Tensor, w_neg: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of the classification, box and background losses of one image, not yet divided."""
    q = cls.sigmoid() * obj.sigmoid().unsqueeze(1)
    giou = torch.stack([_iou_giou(boxes, gt)[1] for gt in gt_boxes], 1) if len(gt_boxes) else w_pos
    cls_pos = 0.25 * (w_pos * -q[:, gt_classes].log()).sum()
    loc = 1.25 * (w_pos * (1 - giou)).sum()
    cls_neg = (w_neg * q**2 * -torch.log1p(-q)).sum()
    return cls_pos, loc, cls_neg


def _iou_giou(boxes: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
    x1, y1, x2, y2 = boxes.unbind(1)
    width = (torch.minimum(x2, gt[2]) - torch.maximum(x1, gt[0])).clamp(min=0)
    height = (torch.minimum(y2, gt[3]) - torch.maximum(y1, gt[1])).clamp(min=0)
    overlap = width * height
    union = ((x2 - x1) * (y2 - y1) + (gt[2] - gt[0]) * (gt[3] - gt[1]) - overlap).clamp(min=1e-6)
    hull_width = torch.maximum(x2, gt[2]) - torch.minimum(x1, gt[0])
    hull_height = torch.maximum(y2, gt[3]) - torch.minimum(y1, gt[1])
    hull = (hull_width * hull_height).clamp(min=1e-6)
    return overlap / union, overlap / union - (hull - union) / hull


def rule(matcher: DW, x: Image) -> tuple[Tensor, ...]:
    return weights(x.logits, x.gates["quality"], x.boxes, *x.place, x.gts, x.classes, matcher.soft_prior)
