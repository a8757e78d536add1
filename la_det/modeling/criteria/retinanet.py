"""The losses of RetinaNet (Lin et al., ICCV 2017), as DATE-R's second branch uses them.

Both are divided by the number of positives of this process's images, where an image without any counts as 1.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from la_det.modeling.criteria.classification import FocalLoss
from la_det.modeling.criteria.reduction import LossTerm
from la_det.structures import Assignment, DensePredictions, Score, Targets, count


@dataclass(frozen=True)
class RetinaNetFocalLoss:
    """Focal loss over all anchors that are not dropped."""

    weight: float = 1.0

    def __call__(
        self, predictions: DensePredictions, targets: Targets, assignment: Assignment, score: Score
    ) -> LossTerm:
        term = FocalLoss(weight=self.weight)(predictions, targets, assignment, score)
        return replace(term, normaliser=_num_positives(targets, assignment), scope="local")


@dataclass(frozen=True)
class RetinaNetBoxLoss:
    """L1 distance of the box channels and the encoded ground truth at the positives, summed over the four channels."""

    weight: float = 1.0

    def __call__(
        self, predictions: DensePredictions, targets: Targets, assignment: Assignment, score: Score
    ) -> LossTerm:
        pairs = assignment.pairs
        target = predictions.codec.encode(targets.boxes[pairs.gt], predictions.priors, pairs.prior)
        loss = (predictions.at("boxes", pairs.image, pairs.prior) - target).abs().sum()
        return LossTerm(self.weight * loss, _num_positives(targets, assignment), scope="local")


def _num_positives(targets: Targets, assignment: Assignment) -> Tensor:
    """Positives of the batch, at least 1 of each image."""
    return count(assignment.pairs.image, targets.num_images).clamp(min=1).sum().float()
