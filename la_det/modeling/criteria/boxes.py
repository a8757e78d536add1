"""Box losses at the assignment's pairs."""

from dataclasses import dataclass
from typing import Literal

import torch

from la_det.losses.box_iou import FLOAT32_EPS, aligned_giou
from la_det.losses.centerness import centerness
from la_det.modeling.criteria.reduction import LossTerm
from la_det.structures import Assignment, DensePredictions, Score, Targets


@dataclass(frozen=True)
class GIoULoss:
    """1 - GIoU of decoded boxes and their ground truths (Rezatofighi et al., CVPR 2019).

    Attributes:
        weight: factor of the loss.
        weighting: weight of each pair: 1, the centerness of its prior, or its soft target.
        normaliser: the sum of the pairs' weights, or the number of positives.
        floor: lower bound of the normaliser.
        eps: of the GIoU's denominators, square pixels.
    """

    weight: float = 1.0
    weighting: Literal["none", "centerness", "target"] = "none"
    normaliser: Literal["weights", "positives"] = "weights"
    floor: float = 1.0
    eps: float = FLOAT32_EPS

    def __call__(
        self, predictions: DensePredictions, targets: Targets, assignment: Assignment, score: Score
    ) -> LossTerm:
        priors, pairs = predictions.priors, assignment.pairs
        boxes = priors.inset(predictions.boxes_at(pairs.image, pairs.prior))
        gt_boxes = priors.inset(targets.boxes[pairs.gt])
        loss = 1 - aligned_giou(boxes, gt_boxes, self.eps)
        if self.weighting == "centerness":
            u = centerness(priors.points[pairs.prior], gt_boxes)
        elif self.weighting == "target":
            u = assignment.target
        else:
            u = torch.ones_like(loss)
        normaliser = u.sum() if self.normaliser == "weights" else assignment.num_positives
        return LossTerm(self.weight * (u * loss).sum(), normaliser, floor=self.floor)
