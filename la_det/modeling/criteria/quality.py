"""Losses of the quality branch at the assignment's pairs."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from la_det.losses.box_iou import aligned_iou
from la_det.losses.centerness import centerness
from la_det.modeling.criteria.reduction import LossTerm
from la_det.structures import Assignment, DensePredictions, Pairs, Score, Targets


@dataclass(frozen=True)
class CenternessLoss:
    """Binary cross entropy of the quality logit and the target's centerness, divided by the number of positives.

    FCOS (ICCV 2019), section 3.3.
    """

    weight: float = 1.0

    def __call__(
        self, predictions: DensePredictions, targets: Targets, assignment: Assignment, score: Score
    ) -> LossTerm:
        priors, pairs = predictions.priors, assignment.pairs
        target = centerness(priors.points[pairs.prior], priors.inset(targets.boxes[pairs.gt]))
        return LossTerm(self.weight * _quality_bce(predictions, pairs, target), assignment.num_positives)


@dataclass(frozen=True)
class PredictedIoULoss:
    """Binary cross entropy of the quality logit and the predicted box's IoU, divided by the number of positives.

    No gradient flows through the IoU. This is LLA's IoU branch.
    """

    weight: float = 1.0

    def __call__(
        self, predictions: DensePredictions, targets: Targets, assignment: Assignment, score: Score
    ) -> LossTerm:
        pairs = assignment.pairs
        boxes = predictions.boxes_at(pairs.image, pairs.prior).detach()
        target = aligned_iou(boxes, targets.boxes[pairs.gt])
        return LossTerm(self.weight * _quality_bce(predictions, pairs, target), assignment.num_positives)


@dataclass(frozen=True)
class SoftTargetLoss:
    """Binary cross entropy of the quality logit and the pair's soft target, divided by the number of positives.

    With Dynamic ATSS, whose target is the predicted box's IoU, this trains the IoU branch (arXiv 2201.09396).
    """

    weight: float = 1.0

    def __call__(
        self, predictions: DensePredictions, targets: Targets, assignment: Assignment, score: Score
    ) -> LossTerm:
        pairs = assignment.pairs
        return LossTerm(self.weight * _quality_bce(predictions, pairs, assignment.target), assignment.num_positives)


def _quality_bce(predictions: DensePredictions, pairs: Pairs, target: Tensor) -> Tensor:
    logits = predictions.at("quality", pairs.image, pairs.prior).squeeze(-1)
    return F.binary_cross_entropy_with_logits(logits, target, reduction="sum")
