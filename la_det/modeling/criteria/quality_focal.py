"""Classification losses whose positive target is a quality instead of 1."""

from dataclasses import dataclass

import torch
from torch import Tensor

from la_det.modeling.criteria.classification import background_and_pairs
from la_det.modeling.criteria.decision import Decision
from la_det.modeling.criteria.reduction import LossTerm


@dataclass(frozen=True)
class QualityFocalLoss:
    """|q - p|^2 BCE(p, q), where q is 0 for background (Li et al., NeurIPS 2020, eq. 6; beta = 2).

    The loss is divided by the number of positives. A positive's q is its soft target in the assignment. The factor
    |q - p|^2 has a gradient, too.

    Attributes:
        weight: factor of the loss.
    """

    weight: float = 1.0

    def __call__(self, decision: Decision) -> LossTerm:
        background, log_p, log_complement = _entries(decision)
        q, p = decision.assignment.target, log_p.exp()
        positive = torch.dot((q - p).square(), log_complement.lerp(log_p, q))
        as_background = torch.dot(p.square(), log_complement)
        numerator = background + as_background - positive  # the last two are negative
        return LossTerm(numerator, decision.assignment.num_positives, weight=self.weight)


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
        background, log_p, log_complement = _entries(decision)
        q, p = decision.assignment.target, log_p.exp()
        positive = torch.dot(q, log_complement.lerp(log_p, q))
        as_background = torch.dot(p.square(), log_complement)
        numerator = self.alpha * (background + as_background) - positive  # the last two are negative
        return LossTerm(numerator, decision.assignment.num_positives, weight=self.weight)


def _entries(decision: Decision) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of p^2 BCE(p, 0) over all entries; ln p and ln(1 - p) [P] of the pairs' classes."""
    background, c, f = background_and_pairs(decision)
    return background, decision.score.log_probability(c, f), decision.score.log_complement(c, f)
