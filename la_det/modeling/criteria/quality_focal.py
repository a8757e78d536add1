"""Classification losses whose positive target is a quality instead of 1."""

from dataclasses import dataclass
from typing import Literal

import torch

from la_det.losses.quality_focal import quality_focal_correction
from la_det.modeling.criteria.classification import background_and_pairs
from la_det.modeling.criteria.decision import Decision
from la_det.modeling.criteria.reduction import LossTerm


@dataclass(frozen=True)
class QualityFocalLoss:
    """|q - p|^2 BCE(p, q), where q is 0 for background (Li et al., NeurIPS 2020, eq. 6; beta = 2).

    A positive's q is its soft target in the assignment. The factor |q - p|^2 has a gradient, too.

    Attributes:
        weight: factor of the loss.
        normaliser: the number of positives, or the sum of their q.
        floor: lower bound of the normaliser.
    """

    weight: float = 1.0
    normaliser: Literal["positives", "targets"] = "positives"
    floor: float = 1.0

    def __call__(self, decision: Decision) -> LossTerm:
        assignment = decision.assignment
        background, c, f = background_and_pairs(decision)
        numerator = background + quality_focal_correction(decision.score, c, f, assignment.target)
        normaliser = assignment.num_positives if self.normaliser == "positives" else assignment.target_sum
        return LossTerm(numerator, normaliser, weight=self.weight, floor=self.floor)


@dataclass(frozen=True)
class CrossEntropyLoss:
    """BCE(p, q), where q is 0 for background, divided by the sum of q, which counts as at least 1 (YOLOv8).

    A positive's q is its soft target in the assignment.

    Attributes:
        weight: factor of the loss.
    """

    weight: float = 1.0

    def __call__(self, decision: Decision) -> LossTerm:
        q = decision.assignment.target
        background, c, _ = background_and_pairs(decision, focal=False)
        # With p = sigma(c), BCE(p, q) is BCE(p, 0) - q c.
        return LossTerm(background - torch.dot(q, c), q.sum(), weight=self.weight)


@dataclass(frozen=True)
class VarifocalLoss:
    """q BCE(p, q) for positives and alpha p^2 BCE(p, 0) for background (Zhang et al., CVPR 2021, eq. 2; gamma = 2).

    The loss is divided by the number of positives. A positive's q is its soft target in the assignment.

    Attributes:
        alpha: weight of background entries.
        weight: factor of the loss.
    """

    alpha: float = 0.75
    weight: float = 1.0

    def __call__(self, decision: Decision) -> LossTerm:
        background, c, f = background_and_pairs(decision)
        log_p, log_complement = decision.score.logs(c, f)
        q, p = decision.assignment.target, log_p.exp()
        positive = torch.dot(q, log_complement.lerp(log_p, q))
        as_background = torch.dot(p.square(), log_complement)
        numerator = self.alpha * (background + as_background) - positive  # the last two are negative
        return LossTerm(numerator, decision.assignment.num_positives, weight=self.weight)
