"""o2f's classification loss (arXiv 2303.11567)."""

from dataclasses import dataclass

import torch

from la_det.geometry import FLOAT32_EPS
from la_det.modeling.criteria.classification import background_and_pairs
from la_det.modeling.criteria.decision import Decision
from la_det.modeling.criteria.reduction import LossTerm


@dataclass(frozen=True)
class SoftLabelLoss:
    """Cross entropy with soft targets at positives and focal loss at background, divided by the number of positives.

    z is the score, t the target and w the weight of a positive. The loss is w BCE(z, t) at a positive's class and
    alpha z^2 BCE(z, 0) at every other (location, class). It is computed from logits, stable for all values.

    Attributes:
        alpha: weight of background entries.
        weight: factor of the loss.
        eps: added to the normaliser.
    """

    alpha: float = 0.75
    weight: float = 1.0
    eps: float = FLOAT32_EPS

    def __call__(self, decision: Decision) -> LossTerm:
        assignment, score, t = decision.assignment, decision.score, decision.assignment.target
        background, c, f = background_and_pairs(decision)
        log_z, log_complement = score.logs(c, f)
        positive = torch.dot(assignment.weight, log_complement.lerp(log_z, t))
        as_background = torch.dot((2 * log_z).exp(), log_complement)
        numerator = self.alpha * (background + as_background) - positive  # the last two are negative
        return LossTerm(numerator, assignment.num_positives, weight=self.weight, eps=self.eps)
