"""Losses of the quality branch at the assignment's pairs."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from la_det.modeling.criteria.decision import Decision
from la_det.modeling.criteria.reduction import LossTerm


@dataclass(frozen=True)
class CenternessLoss:
    """Binary cross entropy of the quality logit and the target's centerness, divided by the number of positives.

    FCOS (ICCV 2019), section 3.3.

    Attributes:
        weight: factor of the loss.
    """

    weight: float = 1.0

    def __call__(self, decision: Decision) -> LossTerm:
        return _quality_bce(decision, decision.centerness, self.weight)


@dataclass(frozen=True)
class PredictedIoULoss:
    """Binary cross entropy of the quality logit and the predicted box's IoU, divided by the number of positives.

    No gradient flows through the IoU. This is the IoU branch of LLA and PAA.

    Attributes:
        weight: factor of the loss.
    """

    weight: float = 1.0

    def __call__(self, decision: Decision) -> LossTerm:
        return _quality_bce(decision, decision.iou, self.weight)


@dataclass(frozen=True)
class SoftTargetLoss:
    """Binary cross entropy of the quality logit and the pair's soft target, divided by the number of positives.

    With Dynamic ATSS, whose target is the predicted box's IoU, this trains the IoU branch (arXiv 2201.09396).

    Attributes:
        weight: factor of the loss.
    """

    weight: float = 1.0

    def __call__(self, decision: Decision) -> LossTerm:
        return _quality_bce(decision, decision.assignment.target, self.weight)


def _quality_bce(decision: Decision, target: Tensor, weight: float) -> LossTerm:
    assignment = decision.assignment
    logits = decision.predictions.at("quality", assignment.pairs.image, assignment.pairs.prior).squeeze(-1)
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="sum")
    return LossTerm(loss, assignment.num_positives, weight=weight)
