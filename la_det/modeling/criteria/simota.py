"""The losses of YOLOX (Ge et al., arXiv 2107.08430), all divided by the number of positives.

YOLOX counts those of the process (`scope="local"`), MMDetection's port averages over processes.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from la_det.geometry import aligned_iou
from la_det.modeling.criteria.decision import Decision
from la_det.modeling.criteria.reduction import LossTerm

Scope = Literal["world", "local"]


@dataclass(frozen=True)
class SquaredIoULoss:
    """1 - IoU^2 of decoded boxes and their ground truths.

    Attributes:
        weight: factor of the loss.
        scope: of the normaliser.
        eps: lower bound of the union, square pixels.
    """

    weight: float = 5.0
    scope: Scope = "world"
    eps: float = 1e-6

    def __call__(self, decision: Decision) -> LossTerm:
        iou = aligned_iou(decision.boxes, decision.gt_boxes, self.eps)
        loss = (1 - iou.square()).sum()
        return LossTerm(loss, decision.assignment.num_positives, weight=self.weight, scope=self.scope)


@dataclass(frozen=True)
class ObjectnessLoss:
    """Binary cross entropy of the quality logit at all priors that are not dropped: 1 for positives, 0 for background.

    Attributes:
        weight: factor of the loss.
        scope: of the normaliser.
    """

    weight: float = 1.0
    scope: Scope = "world"

    def __call__(self, decision: Decision) -> LossTerm:
        predictions, assignment = decision.predictions, decision.assignment
        if assignment.queries is not None:
            raise ValueError("ObjectnessLoss trains all locations; a criterion with queries cannot have it")
        logits = predictions.flat("quality")
        target = torch.zeros_like(logits)
        target.index_fill_(0, predictions.index("quality", assignment.pairs.image, assignment.pairs.prior), 1)
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="sum")
        if assignment.dropped is not None:
            loss = loss - F.softplus(predictions.at("quality", *assignment.dropped)).sum()
        return LossTerm(loss, assignment.num_positives, weight=self.weight, scope=self.scope)


@dataclass(frozen=True)
class PositiveClassLoss:
    """Binary cross entropy of the class logits at the positives alone: the soft target for the class, 0 for the others.

    Background is left to the `ObjectnessLoss`.

    Attributes:
        weight: factor of the loss.
        scope: of the normaliser.
    """

    weight: float = 1.0
    scope: Scope = "world"

    def __call__(self, decision: Decision) -> LossTerm:
        assignment = decision.assignment
        logits = decision.predictions.at("logits", assignment.pairs.image, assignment.pairs.prior)  # [P, K]
        target = torch.zeros_like(logits).scatter_(1, decision.classes.unsqueeze(1), assignment.target.unsqueeze(1))
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="sum")
        return LossTerm(loss, assignment.num_positives, weight=self.weight, scope=self.scope)
