"""What a criterion decided about a batch, as its losses read it."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from la_det.geometry import aligned_iou, centerness
from la_det.structures import Assignment, DensePredictions, Score, Targets


@dataclass(frozen=True)
class Decision:
    """An assignment with its inputs, and what several losses need at its P pairs, computed once.

    Attributes:
        predictions: predictions of the criterion's branch.
        targets: the ground truths that the matcher saw.
        assignment: what the matcher decided.
        score: the criterion's classification probability.
    """

    predictions: DensePredictions
    targets: Targets
    assignment: Assignment
    score: Score

    @cached_property
    def num_gts(self) -> Tensor:
        """Scalar float32, the number of ground truths: a normaliser of losses."""
        return torch.full((), float(len(self.targets)), device=self.targets.boxes.device)

    @cached_property
    def classes(self) -> Tensor:
        """[P] int64 classes of the ground truths."""
        return self.targets.classes.index_select(0, self.assignment.pairs.gt)

    @cached_property
    def gt_boxes(self) -> Tensor:
        """[P, 4] boxes of the ground truths, XYXY pixels."""
        return self.targets.boxes.index_select(0, self.assignment.pairs.gt)

    @cached_property
    def boxes(self) -> Tensor:
        """[P, 4] predicted boxes, XYXY pixels, with gradient."""
        return self.predictions.boxes_at(self.assignment.pairs.image, self.assignment.pairs.prior)

    @cached_property
    def iou(self) -> Tensor:
        """[P] IoU of the predicted boxes and the ground truths, without gradient."""
        return aligned_iou(self.boxes.detach(), self.gt_boxes)

    @cached_property
    def centerness(self) -> Tensor:
        """[P] centerness of the pairs' points in their ground truths."""
        priors = self.predictions.priors
        points = priors.points.index_select(0, self.assignment.pairs.prior)
        return centerness(points, priors.inset(self.gt_boxes))
