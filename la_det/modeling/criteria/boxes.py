"""Box losses at the assignment's pairs."""

from dataclasses import dataclass
from typing import Literal

import torch

from la_det.losses.box_iou import FLOAT32_EPS, aligned_giou, aligned_iou
from la_det.losses.centerness import centerness
from la_det.losses.relative_boxes import image_scales, relative_cxcywh
from la_det.modeling.criteria.reduction import LossTerm
from la_det.structures import Assignment, DensePredictions, Score, Targets


@dataclass(frozen=True)
class GIoULoss:
    """1 - GIoU of decoded boxes and their ground truths (Rezatofighi et al., CVPR 2019).

    Attributes:
        weight: factor of the loss.
        weighting: weight of each pair: 1, the centerness of its prior, or its soft target.
        normaliser: the sum of the pairs' weights, or the number of positives.
        floor: lower bound of the normaliser.
        eps: of the GIoU's denominators, square pixels.
    """

    weight: float = 1.0
    weighting: Literal["none", "centerness", "target"] = "none"
    normaliser: Literal["weights", "positives"] = "weights"
    floor: float = 1.0
    eps: float = FLOAT32_EPS

    def __call__(
        self, predictions: DensePredictions, targets: Targets, assignment: Assignment, score: Score
    ) -> LossTerm:
        priors, pairs = predictions.priors, assignment.pairs
        boxes = priors.inset(predictions.boxes_at(pairs.image, pairs.prior))
        gt_boxes = priors.inset(targets.boxes[pairs.gt])
        loss = 1 - aligned_giou(boxes, gt_boxes, self.eps)
        if self.weighting == "centerness":
            u = centerness(priors.points[pairs.prior], gt_boxes)
        elif self.weighting == "target":
            u = assignment.target
        else:
            u = torch.ones_like(loss)
        normaliser = u.sum() if self.normaliser == "weights" else assignment.num_positives
        return LossTerm(self.weight * (u * loss).sum(), normaliser, floor=self.floor)


@dataclass(frozen=True)
class IoULoss:
    """-ln IoU of decoded boxes and their ground truths (Yu et al., ACM MM 2016), weighted by centerness (FCOS).

    Attributes:
        weight: factor of the loss.
        floor: lower bound of the normaliser, which is the sum of the weights.
        eps: lower bound of the IoU, and of its union in square pixels.
    """

    weight: float = 1.0
    floor: float = 1e-6
    eps: float = 1e-6

    def __call__(
        self, predictions: DensePredictions, targets: Targets, assignment: Assignment, score: Score
    ) -> LossTerm:
        pairs, gt_boxes = assignment.pairs, targets.boxes[assignment.pairs.gt]
        iou = aligned_iou(predictions.boxes_at(pairs.image, pairs.prior), gt_boxes, self.eps)
        u = centerness(predictions.priors.points[pairs.prior], gt_boxes)
        loss = -(u * iou.clamp(min=self.eps).log()).sum()
        return LossTerm(self.weight * loss, u.sum(), floor=self.floor, eps=FLOAT32_EPS)


@dataclass(frozen=True)
class RelativeL1Loss:
    """L1 distance of (cx, cy, w, h) relative to the image's size before padding (Carion et al., ECCV 2020).

    Divided by the number of positives, averaged over processes and not rounded up to 1.
    """

    weight: float = 5.0

    def __call__(
        self, predictions: DensePredictions, targets: Targets, assignment: Assignment, score: Score
    ) -> LossTerm:
        pairs = assignment.pairs
        scales = image_scales(targets)[pairs.image]
        b = relative_cxcywh(predictions.boxes_at(pairs.image, pairs.prior), scales)
        b_gt = relative_cxcywh(targets.boxes[pairs.gt], scales)
        return LossTerm(self.weight * (b - b_gt).abs().sum(), assignment.num_positives, floor=0.0)
