"""Classification losses whose positive target is a quality instead of 1."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

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
        background, log_p, log_complement = _entries(decision)
        q, p = decision.assignment.target, log_p.exp()
        positive = torch.dot((q - p).square(), log_complement.lerp(log_p, q))
        as_background = torch.dot(p.square(), log_complement)
        numerator = background + as_background - positive  # the last two are negative
        normaliser = decision.assignment.num_positives if self.normaliser == "positives" else q.sum()
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
