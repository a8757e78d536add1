"""Box losses at the assignment's pairs."""

from dataclasses import dataclass
from typing import Literal

import torch

from la_det.geometry import FLOAT32_EPS, aligned_ciou, aligned_giou, aligned_iou, image_scales, relative_boxes
from la_det.modeling.criteria.decision import Decision
from la_det.modeling.criteria.reduction import LossTerm


@dataclass(frozen=True)
class GIoULoss:
    """1 - GIoU of decoded boxes and their ground truths (Rezatofighi et al., CVPR 2019).

    Attributes:
        weight: factor of the loss.
        weighting: weight of a pair.
            "none": 1.
            "centerness": the centerness of the prior.
            "target": the soft target.
            "iou": the IoU of the predicted box, without gradient.
        normaliser: what the sum is divided by.
            "weights": the sum of the pairs' weights.
            "positives": the number of positives.
        floor: lower bound of the normaliser.
        eps: lower bound of the GIoU's denominators, square pixels.
    """

    weight: float = 1.0
    weighting: Literal["none", "centerness", "target", "iou"] = "none"
    normaliser: Literal["weights", "positives"] = "weights"
    floor: float = 1.0
    eps: float = FLOAT32_EPS

    def __call__(self, decision: Decision) -> LossTerm:
        assignment, inset = decision.assignment, decision.predictions.priors.inset
        giou = aligned_giou(inset(decision.boxes), inset(decision.gt_boxes), self.eps)
        if self.weighting == "none":
            loss, weights = (1 - giou).sum(), assignment.num_positives
        else:
            u = assignment.target if self.weighting == "target" else getattr(decision, self.weighting)
            loss = torch.dot(u, 1 - giou)
            weights = assignment.target_sum if self.weighting == "target" else u.sum()
        normaliser = weights if self.normaliser == "weights" else assignment.num_positives
        return LossTerm(loss, normaliser, weight=self.weight, floor=self.floor)


@dataclass(frozen=True)
class CIoULoss:
    """1 - CIoU of decoded boxes and their ground truths (Zheng et al., AAAI 2020), weighted by the soft targets.

    Divided by the sum of the targets, which counts as at least 1 (YOLOv8).

    Attributes:
        weight: factor of the loss.
    """

    weight: float = 1.0

    def __call__(self, decision: Decision) -> LossTerm:
        target = decision.assignment.target
        ciou = aligned_ciou(decision.boxes, decision.gt_boxes)
        return LossTerm(torch.dot(target, 1 - ciou), target.sum(), weight=self.weight)


@dataclass(frozen=True)
class IoULoss:
    """-ln IoU of decoded boxes and their ground truths (Yu et al., ACM MM 2016), weighted by centerness (FCOS).

    Attributes:
        weight: factor of the loss.
        floor: lower bound of the normaliser, the sum of the weights.
        eps: lower bound of the IoU, and of the union in square pixels.
    """

    weight: float = 1.0
    floor: float = 1e-6
    eps: float = 1e-6

    def __call__(self, decision: Decision) -> LossTerm:
        u = decision.centerness
        iou = aligned_iou(decision.boxes, decision.gt_boxes, self.eps)
        loss = -torch.dot(u, iou.clamp(min=self.eps).log())
        return LossTerm(loss, u.sum(), weight=self.weight, floor=self.floor, eps=FLOAT32_EPS)


@dataclass(frozen=True)
class RelativeL1Loss:
    """L1 distance of (cx, cy, w, h) relative to the image's size before padding (Carion et al., ECCV 2020).

    It is divided by the number of positives, averaged over processes.

    Attributes:
        weight: factor of the loss.
        corners: compare (x1, y1, x2, y2) instead (OneNet).
        floor: lower bound of the divisor. With 0 the divisor may lie below 1.
    """

    weight: float = 5.0
    corners: bool = False
    floor: float = 0.0

    def __call__(self, decision: Decision) -> LossTerm:
        scales = image_scales(decision.targets).index_select(0, decision.assignment.pairs.image)
        # The centre and size of a difference are the differences of centres and sizes.
        difference = relative_boxes(decision.boxes - decision.gt_boxes, scales, self.corners)
        loss = difference.abs().sum()
        return LossTerm(loss, decision.assignment.num_positives, weight=self.weight, floor=self.floor)
