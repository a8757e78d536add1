"""Classification losses whose positive target is a quality instead of 1."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from la_det.losses.quality_focal import quality_focal_correction
from la_det.modeling.criteria.classification import background_and_pairs
from la_det.modeling.criteria.decision import Decision
from la_det.modeling.criteria.reduction import LossTerm


@dataclass(frozen=True)
class QualityFocalLoss:
    """|q - p|^2 BCE(p, q), where q is 0 for background (Li et al., NeurIPS 2020, eq. 6; beta = 2).

    The q of a positive is the assignment's soft target. The factor |q - p|^2 is differentiated too.

    Attributes:
        weight: factor of the loss.
        normaliser: the number of positives, or the sum of their q.
        floor: lower bound of the normaliser.
    """

    weight: float = 1.0
    normaliser: Literal["positives", "targets"] = "positives"
    floor: float = 1.0

    def __call__(self, decision: Decision) -> LossTerm:
        background, c, f = background_and_pairs(decision)
        q = decision.assignment.target
        numerator = background + quality_focal_correction(decision.score, c, f, q)
        normaliser = decision.assignment.num_positives if self.normaliser == "positives" else decision.assignment.target_sum
        return LossTerm(numerator, normaliser, weight=self.weight, floor=self.floor)


@dataclass(frozen=True)
class VarifocalLoss:
    """q BCE(p, q) for positives and alpha p^2 BCE(p, 0) for background (Zhang et al., CVPR 2021, eq. 2; gamma = 2).

    Divided by the number of positives. Their q is the assignment's soft target.

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
