"""ATSS: adaptive training sample selection (Zhang et al., CVPR 2020, section 4)."""

import torch

from la_det.geometry import aligned_iou
from la_det.steps.candidates import beyond_extents, nearest_priors, smaller_extents
from la_det.steps.select import above_threshold, mean_plus_std
from la_det.structures import Assignment, DensePredictions, Score, Targets


class ATSS:
    """Positives are a ground truth's candidates whose IoU is at least the mean plus the standard deviation of all.

    Args:
        topk: k. The candidates are the anchors of the k cells of each level whose centres are nearest to the ground
            truth's centre.
        margin: the centre of a positive lies more than this many pixels inside each side of the ground truth.
        pad_to: anchors take part if their cell begins inside the image, whose own size is first padded to a multiple of
            this. Others are dropped. None: all anchors take part.
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
