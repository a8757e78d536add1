"""POTO: prediction-aware one-to-one assignment (Wang et al., CVPR 2021, section 3.2)."""

import torch
from torch import Tensor

from la_det.geometry import aligned_iou
from la_det.steps.candidates import center_region
from la_det.steps.score import matching_quality
from la_det.steps.select import best_of_each, match
from la_det.structures import Assignment, DensePredictions, Pairs, Score, Targets


class POTO:
    """Each ground truth gets the one location of largest quality q = p^(1 - alpha) IoU^alpha in its centre region.

    Args:
        alpha: weight of localisation against classification (0.8 in the paper).
        center_radius: half side of the region Omega in strides; 0 takes the whole box.
        hungarian: how the assignment is solved.
            True: exactly.
            False: "argmax". Each ground truth chooses its best location; the one of largest quality keeps a location.
        drop_unmatched: what a ground truth without a free candidate gets in the exact assignment.
            False: an arbitrary location, as in the official implementation.
            True: no location, as always with argmax.
        outside: quality of all locations outside Omega in the exact assignment. It matters for a ground truth that has
            no free candidate of positive quality.
            -1: this ground truth prefers a free candidate of quality 0 (DeFCN).
            0: this ground truth has no preference (DATE).
    """

    def __init__(
        self,
        *,
        alpha: float = 0.8,
        center_radius: float = 1.5,
        hungarian: bool = True,
        drop_unmatched: bool = False,
        outside: float = -1.0,
    ):
        self.alpha = alpha
        self.center_radius = center_radius
        self.hungarian = hungarian
        self.drop_unmatched = drop_unmatched
        self.outside = outside

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        priors = predictions.priors
        pairs, omega = center_region(priors, targets, self.center_radius)
        q = self.matching_quality(predictions, targets, pairs, score)
        if not self.hungarian:
            return Assignment(best_of_each(pairs, q, priors, targets, among=omega))
        matched = match(
            pairs, q, targets, len(priors), missing=self.outside, drop_missing=self.drop_unmatched, among=omega
        )
        return Assignment(matched)

    def matching_quality(self, predictions: DensePredictions, targets: Targets, pairs: Pairs, score: Score) -> Tensor:
        """q of each pair [P] (eq. 5)."""
        p = score.at(predictions, pairs.image, pairs.prior, targets.classes.index_select(0, pairs.gt))
        boxes = predictions.boxes_at(pairs.image, pairs.prior)
        return matching_quality(p, aligned_iou(boxes, targets.boxes.index_select(0, pairs.gt)), self.alpha)
