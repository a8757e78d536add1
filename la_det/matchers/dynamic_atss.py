"""Dynamic ATSS: ATSS on the sum of predicted and anchor IoUs (arXiv 2201.09396)."""

import torch

from la_det.losses.box_iou import aligned_iou
from la_det.matchers.atss import mean_plus_std, select
from la_det.matchers.nearest import nearest_priors
from la_det.structures import Assignment, DensePredictions, Score, Targets


class DynamicATSS:
    """ATSS whose IoU is that of the predicted box plus that of the anchor; the former is the soft target of positives.

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
        image = targets.image.unsqueeze(1).expand_as(candidates)
        predicted = predictions.boxes_at(image.flatten(), candidates.flatten()).view(*candidates.shape, 4)
        a = aligned_iou(priors.boxes[candidates], gt_boxes)
        p = aligned_iou(predicted, gt_boxes)
        threshold = mean_plus_std(a) + mean_plus_std(p)  # not the deviation of the sum
        pairs, where = select(candidates, a + p, threshold, priors, targets, self.margin)
        return Assignment(pairs, target=p.flatten()[where])
