"""Dynamic ATSS: ATSS on the sum of predicted and anchor IoUs (arXiv 2201.09396)."""

import torch

from la_det.geometry import aligned_iou
from la_det.steps.candidates import every_pair, nearest_priors
from la_det.steps.select import above_threshold, mean_plus_std
from la_det.structures import Assignment, DensePredictions, Score, Targets


class DynamicATSS:
    """ATSS on the IoU of the predicted box plus the IoU of the anchor; the former is a positive's soft target.

    Args:
        topk, margin: see `ATSS`.
    """

    def __init__(self, *, topk: int = 9, margin: float = 0.01):
        self.topk = topk
        self.margin = margin

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        priors, gt_boxes = predictions.priors, targets.boxes.unsqueeze(1)
        candidates = nearest_priors(priors, targets, self.topk)  # [G, C]
        pairs = every_pair(candidates, targets)
        predicted = predictions.boxes_at(pairs.image, pairs.prior).view(*candidates.shape, 4)
        boxes = torch.stack([priors.boxes[candidates], predicted])
        iou = aligned_iou(boxes, gt_boxes.expand_as(boxes))
        threshold = mean_plus_std(iou).sum(0)  # the sum of both deviations, not the deviation of the sum
        pairs, where = above_threshold(candidates, iou.sum(0), threshold, priors, targets, self.margin)
        return Assignment(pairs, target=iou[1].flatten()[where])
