"""Classification losses over all priors and classes, with targets only at the assignment's pairs."""

from dataclasses import dataclass

from la_det.losses.background import background_loss
from la_det.losses.focal import focal_entries
from la_det.modeling.criteria.reduction import LossTerm
from la_det.structures import Assignment, DensePredictions, Score, Targets


@dataclass(frozen=True)
class FocalLoss:
    """Focal loss (Lin et al., ICCV 2017, eq. 5; gamma = 2), divided by the number of positives.

    Works on p = sigma(c) and on gated scores p = sigma(c) sigma(f) alike, in a form that is stable for all logits.

    Attributes:
        alpha: weight of positive entries; background entries weigh 1 - alpha.
        weight: factor of the loss.
        eps: added to the normaliser.
    """

    alpha: float = 0.25
    weight: float = 1.0
    eps: float = 0.0

    def __call__(
        self, predictions: DensePredictions, targets: Targets, assignment: Assignment, score: Score
    ) -> LossTerm:
        pairs = assignment.pairs
        entries = pairs.image, pairs.prior, targets.classes[pairs.gt]
        background, c, f = background_loss(predictions, score, *entries, assignment.dropped)
        positive, negative = focal_entries(score, c, f, self.alpha)
        numerator = (1 - self.alpha) * background + (positive - negative).sum()
        return LossTerm(self.weight * numerator, assignment.num_positives, eps=self.eps)
