"""Classification losses over all priors and classes, with targets only at the assignment's pairs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from la_det.losses.background import background_loss
from la_det.losses.focal import focal_entries
from la_det.modeling.criteria.decision import Decision
from la_det.modeling.criteria.reduction import LossTerm


@dataclass(frozen=True)
class FocalLoss:
    """Focal loss (Lin et al., ICCV 2017, eq. 5; gamma = 2), divided by the number of positives.

    p is the criterion's score. The loss is stable for all logits.

    Attributes:
        alpha: weight of positive entries; background entries weigh 1 - alpha.
        weight: factor of the loss.
        floor: lower bound of the normaliser.
    """

    alpha: float = 0.25
    weight: float = 1.0
    floor: float = 1.0

    def __call__(self, decision: Decision) -> LossTerm:
        background, c, f = background_and_pairs(decision)
        positive, negative = focal_entries(decision.score, c, f, self.alpha)
        correction, classifies = positive - negative, decision.assignment.classifies
        correction = correction.sum() if classifies is None else torch.dot(correction, classifies.to(correction))
        numerator = torch.add(correction, background, alpha=1 - self.alpha)
        return LossTerm(numerator, decision.assignment.num_positives, weight=self.weight, floor=self.floor)


def background_and_pairs(decision: Decision, *, focal: bool = True) -> tuple[Tensor, Tensor, Tensor | None]:
    """The result of `background_loss`, with the classes of the pairs' ground truths as the chosen entries."""
    assignment = decision.assignment
    entries = assignment.pairs.image, assignment.pairs.prior, decision.classes
    parts = assignment.dropped, assignment.queries
    return background_loss(decision.predictions, decision.score, *entries, *parts, focal=focal)
