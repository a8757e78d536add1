"""Classification losses whose positive target is a quality instead of 1."""

from dataclasses import dataclass

from torch import Tensor

from la_det.modeling.criteria.classification import background_and_pairs
from la_det.modeling.criteria.decision import Decision
from la_det.modeling.criteria.reduction import LossTerm


@dataclass(frozen=True)
class QualityFocalLoss:
    """|q - p|^2 BCE(p, q), where q is 0 for background (Li et al., NeurIPS 2020, eq. 6; beta = 2).

    Divided by the number of positives. Their q is the assignment's soft target. The factor |q - p|^2 is
    differentiated too.

    Attributes:
        weight: factor of the loss.
    """

    weight: float = 1.0

    def __call__(self, decision: Decision) -> LossTerm:
        background, log_p, log_complement = _entries(decision)
        q, p = decision.assignment.target, log_p.exp()
        positive = (q - p).square() * _cross_entropy(q, log_p, log_complement)
        numerator = background + (positive - p.square() * -log_complement).sum()
        return LossTerm(self.weight * numerator, decision.assignment.num_positives)


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
        positive = q * _cross_entropy(q, log_p, log_complement)
        numerator = self.alpha * background + (positive - self.alpha * p.square() * -log_complement).sum()
        return LossTerm(self.weight * numerator, decision.assignment.num_positives)


def _entries(decision: Decision) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of p^2 BCE(p, 0) over all entries; ln p and ln(1 - p) [P] of the pairs' classes."""
    background, c, f = background_and_pairs(decision)
    return background, decision.score.log_probability(c, f), decision.score.log_complement(c, f)


def _cross_entropy(q: Tensor, log_p: Tensor, log_complement: Tensor) -> Tensor:
    return -(q * log_p + (1 - q) * log_complement)
