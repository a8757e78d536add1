"""ATSS: adaptive training sample selection (Zhang et al., CVPR 2020, section 4)."""

import torch

from la_det.geometry import aligned_iou
from la_det.steps.candidates import beyond_extents, nearest_priors, smaller_extents
from la_det.steps.select import above_threshold, mean_plus_std
from la_det.structures import Assignment, DensePredictions, Score, Targets


class ATSS:
    """Positives are the anchors near a ground truth whose IoU is at least the mean plus the deviation of all near ones.

    Args:
        topk: k, the cells of each level whose centres are nearest to the ground truth's centre and whose anchors are
            its candidates.
        margin: distance by which an anchor's centre must lie inside the ground truth, exclusive, pixels.
        pad_to: anchors take part whose cell begins inside the image after padding its own size to a multiple of this;
            the others are dropped. None takes all.
    """

    def __init__(self, *, topk: int = 9, margin: float = 0.01, pad_to: int | None = None):
        self.topk = topk
        self.margin = margin
        self.pad_to = pad_to

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        priors = predictions.priors
        extents = smaller_extents(priors, targets, self.pad_to)
        candidates = nearest_priors(priors, targets, self.topk, extents)
        exists, candidates = None if extents is None else candidates >= 0, candidates.clamp(min=0)
        iou = aligned_iou(priors.boxes[candidates], targets.boxes.unsqueeze(1))
        threshold = mean_plus_std(iou, exists)
        pairs, _ = above_threshold(candidates, iou, threshold, priors, targets, self.margin, exists)
        return Assignment(pairs, dropped=beyond_extents(priors, extents))
