"""The losses of DW (Li et al., CVPR 2022), weighted by its positive and negative weights.

The positive ones are divided by the number of ground truths, whether or not they contain a location.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from la_det.losses.background import background_loss
from la_det.losses.box_iou import aligned_giou
from la_det.losses.focal import focal_entries
from la_det.matchers.dw import BETA, GIOU_EPS
from la_det.modeling.criteria.reduction import LossTerm
from la_det.structures import Assignment, DensePredictions, Score, Targets


@dataclass(frozen=True)
class DWPositiveLoss:
    """Sum of w_pos (-ln p_cls)."""

    weight: float = 0.25

    def __call__(
        self, predictions: DensePredictions, targets: Targets, assignment: Assignment, score: Score
    ) -> LossTerm:
        pairs = assignment.pairs
        c, f = score.logits_at(predictions, pairs.image, pairs.prior, targets.classes[pairs.gt])
        log_p = score.log_probability(c, f)
        return LossTerm(self.weight * (assignment.weight * -log_p).sum(), _count(targets))


@dataclass(frozen=True)
class DWBoxLoss:
    """Sum of w_pos (-ln p_loc), where -ln p_loc = beta (1 - GIoU)."""

    weight: float = 0.25

    def __call__(
        self, predictions: DensePredictions, targets: Targets, assignment: Assignment, score: Score
    ) -> LossTerm:
        pairs = assignment.pairs
        giou = aligned_giou(predictions.boxes_at(pairs.image, pairs.prior), targets.boxes[pairs.gt], GIOU_EPS)
        loss = BETA * (assignment.weight * (1 - giou)).sum()
        return LossTerm(self.weight * loss, _count(targets))


@dataclass(frozen=True)
class DWNegativeLoss:
    """Sum of w_neg p^2 (-ln(1 - p)) over all locations and classes, divided by the sum of 1 - w_neg."""

    def __call__(
        self, predictions: DensePredictions, targets: Targets, assignment: Assignment, score: Score
    ) -> LossTerm:
        n = assignment.negatives
        background, c, f = background_loss(predictions, score, n.image, n.prior, n.cls)
        _, entries = focal_entries(score, c, f, alpha=0.0)
        return LossTerm(background - ((1 - n.weight) * entries).sum(), (1 - n.weight).sum())


def _count(targets: Targets) -> Tensor:
    return torch.full((), float(len(targets)), device=targets.boxes.device)
