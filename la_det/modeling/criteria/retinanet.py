"""The losses of RetinaNet (Lin et al., ICCV 2017), as DATE-R's second branch uses them.

Both are divided by the number of positives in this process's images. An image without positives counts as 1.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from la_det.modeling.criteria.classification import FocalLoss
from la_det.modeling.criteria.decision import Decision
from la_det.modeling.criteria.reduction import LossTerm
from la_det.structures import count


@dataclass(frozen=True)
class RetinaNetFocalLoss:
    """Focal loss over all anchors that are not dropped.

    Attributes:
        weight: factor of the loss.
    """

    weight: float = 1.0

    def __call__(self, decision: Decision) -> LossTerm:
        term = FocalLoss(weight=self.weight)(decision)
        return replace(term, normaliser=_num_positives(decision), scope="local")


@dataclass(frozen=True)
class RetinaNetBoxLoss:
    """L1 distance of the box channels to the encoded ground truths at the positives, summed over the four channels.

    Attributes:
        weight: factor of the loss.
    """

    weight: float = 1.0

    def __call__(self, decision: Decision) -> LossTerm:
        predictions, pairs = decision.predictions, decision.assignment.pairs
        target = predictions.codec.encode(decision.gt_boxes, predictions.priors, pairs.prior)
        loss = (predictions.at("boxes", pairs.image, pairs.prior) - target).abs().sum()
        return LossTerm(loss, _num_positives(decision), weight=self.weight, scope="local")


def _num_positives(decision: Decision) -> Tensor:
    """Number of positives of the batch, where each image counts at least 1."""
    return count(decision.assignment.pairs.image, decision.targets.num_images).clamp(min=1).sum().float()
