"""ATSS: adaptive training sample selection (Zhang et al., CVPR 2020, section 4)."""

import torch

from la_det.geometry import aligned_iou
from la_det.steps.candidates import nearest_priors
from la_det.steps.select import above_threshold, mean_plus_std
from la_det.structures import Assignment, DensePredictions, Score, Targets


class ATSS:
    """Positives are a ground truth's candidates whose IoU is at least the mean plus the standard deviation of all.

    Args:
        topk: k. The candidates are the anchors of the k cells of each level whose centres are nearest to the ground
            truth's centre.
        margin: the centre of a positive lies more than this many pixels inside each side of the ground truth.
    """

    def __init__(self, *, topk: int = 9, margin: float = 0.01):
        self.topk = topk
        self.margin = margin

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        priors = predictions.priors
        candidates = nearest_priors(priors, targets, self.topk)
        iou = aligned_iou(priors.boxes[candidates], targets.boxes.unsqueeze(1))
        return Assignment(above_threshold(candidates, iou, mean_plus_std(iou), priors, targets, self.margin)[0])
