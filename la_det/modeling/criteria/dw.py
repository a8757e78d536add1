"""The losses of DW (Li et al., CVPR 2022), weighted by its positive and negative weights.

The classification and box losses of positives are divided by the number of ground truths, also of those without any
location inside.
"""

from dataclasses import dataclass

import torch

from la_det.geometry import aligned_giou
from la_det.losses.background import background_loss
from la_det.losses.focal import focal_entries
from la_det.matchers.dw import BETA, GIOU_EPS
from la_det.modeling.criteria.decision import Decision
from la_det.modeling.criteria.reduction import LossTerm


@dataclass(frozen=True)
class DWPositiveLoss:
    """Classification loss of positives: sum of w_pos (-ln p_cls).

    Attributes:
        weight: factor of the loss.
    """

    weight: float = 0.25

    def __call__(self, decision: Decision) -> LossTerm:
        pairs, score = decision.assignment.pairs, decision.score
        c, f = score.logits_at(decision.predictions, pairs.image, pairs.prior, decision.classes)
        loss = -torch.dot(decision.assignment.weight, score.log_probability(c, f))
        return LossTerm(loss, decision.num_gts, weight=self.weight)


@dataclass(frozen=True)
class DWBoxLoss:
    """Box loss of positives: sum of w_pos (-ln p_loc), where -ln p_loc = beta (1 - GIoU).

    Attributes:
        weight: factor of the loss.
    """

    weight: float = 0.25

    def __call__(self, decision: Decision) -> LossTerm:
        giou = aligned_giou(decision.boxes, decision.gt_boxes, GIOU_EPS)
        loss = torch.dot(decision.assignment.weight, 1 - giou)
        return LossTerm(loss, decision.num_gts, weight=self.weight * BETA)


@dataclass(frozen=True)
class DWNegativeLoss:
    """Sum of w_neg p^2 (-ln(1 - p)) over all locations and classes, divided by the sum of 1 - w_neg."""

    def __call__(self, decision: Decision) -> LossTerm:
        n, score = decision.assignment.negatives, decision.score
        background, c, f = background_loss(decision.predictions, score, n.image, n.prior, n.cls)
        _, entries = focal_entries(score, c, f, alpha=0.0)
        lowered = 1 - n.weight
        return LossTerm(background - torch.dot(lowered, entries), lowered.sum())
