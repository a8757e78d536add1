"""Score voting: boxes of detections from those that NMS removed (Kim and Lee, ECCV 2020, section 3.4)."""

from dataclasses import replace

import torch

from la_det.geometry import aligned_iou
from la_det.modeling.inference import Candidates
from la_det.structures.no_wait import recording


class ScoreVoting:
    """Each detection's box becomes the mean of its class's candidates around it; scores, classes and order stay.

    A candidate of score s weighs s exp(-(1 - IoU)^2 / sigma).

    Args:
        sigma: how far from the detection candidates count.
        min_iou: those of at most this IoU do not.
    """

    def __init__(self, *, sigma: float = 0.025, min_iou: float = 0.01):
        self.sigma = sigma
        self.min_iou = min_iou

    def __call__(self, detections: Candidates, candidates: Candidates) -> Candidates:
        """The detections of each image with other boxes; the candidates are those before NMS."""
        if not recording():  # where a graph is recorded, sizes must not depend on values
            most = int(candidates.counts.max()) if len(candidates.valid) else 0  # host synchronisation
            candidates = candidates.take(candidates.valid.byte().argsort(1, descending=True)[:, :most])
        iou = aligned_iou(detections.boxes.unsqueeze(2), candidates.boxes.unsqueeze(1))  # [N, D, S]
        votes = (detections.classes.unsqueeze(2) == candidates.classes.unsqueeze(1)) & candidates.valid.unsqueeze(1)
        votes = votes & (iou > self.min_iou)
        weight = ((1 - iou).square() / -self.sigma).exp() * candidates.scores.unsqueeze(1) * votes
        total = weight.sum(2, keepdim=True)
        # A box without area overlaps nothing, not even itself: it stays.
        boxes = torch.where(total > 0, weight @ candidates.boxes / total, detections.boxes)
        return replace(detections, boxes=boxes)
