"""Losses of the quality branch at the assignment's pairs."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from la_det.losses.centerness import centerness
from la_det.modeling.criteria.reduction import LossTerm
from la_det.structures import Assignment, DensePredictions, Score, Targets


@dataclass(frozen=True)
class CenternessLoss:
    """Binary cross entropy of the quality logit and the target's centerness, divided by the number of positives.

    FCOS (ICCV 2019), section 3.3.
    """

    weight: float = 1.0

    def __call__(
        self, predictions: DensePredictions, targets: Targets, assignment: Assignment, score: Score
    ) -> LossTerm:
        pairs = assignment.pairs
        logits = predictions.at("quality", pairs.image, pairs.prior).squeeze(-1)
        target = centerness(predictions.priors.points[pairs.prior], targets.boxes[pairs.gt])
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="sum")
        return LossTerm(self.weight * loss, torch.full((), len(pairs), dtype=torch.float32, device=logits.device))
