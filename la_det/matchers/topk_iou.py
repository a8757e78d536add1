"""The anchors of largest IoU over all levels, an option of ATSS's official code ("TOPK")."""

import torch
from torch import Tensor

from la_det.geometry import aligned_iou, ltrb_distances
from la_det.steps.candidates import grid_extents, nearest_priors, overlapping_anchors
from la_det.steps.select import best_per_prior, topk_in_group
from la_det.structures import Assignment, DensePredictions, Priors, Score, Targets, constant


class TopKIoU:
    """Positives are those of a ground truth's k anchors of largest IoU whose centres lie inside the ground truth.

    The distance d of the centres decides between equal IoUs: the ranking is IoU - d / (1000 d_max), with d_max the
    largest distance between any anchor and any ground truth of the image.

    Args:
        topk: k.
        margin: the centre of a positive lies more than this many pixels inside each side of the ground truth.
    """

    def __init__(self, *, topk: int = 9, margin: float = 0.01):
        self.topk = topk
        self.margin = margin

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        priors = predictions.priors
        penalty = 1 / (1000 * _largest_distances(priors, targets).clamp(min=1e-6))  # [G]
        # The k-th best near anchor is a lower bound of the k-th best of all. An anchor without overlap is not inside.
        near = nearest_priors(priors, targets, self.topk)
        iou = aligned_iou(priors.boxes[near], targets.boxes.unsqueeze(1))
        distance = (priors.points[near] - targets.centers.unsqueeze(1)).norm(dim=-1)
        rank = iou - distance * penalty.unsqueeze(1)
        lowest = rank.topk(min(self.topk, rank.shape[1])).values[:, -1]
        pairs = overlapping_anchors(priors, targets, lowest.clamp(min=0), grid_extents(priors, targets, None))

        iou = aligned_iou(priors.boxes[pairs.prior], targets.boxes[pairs.gt])
        distance = (priors.points[pairs.prior] - targets.centers[pairs.gt]).norm(dim=-1)
        best = topk_in_group(pairs.gt, iou - distance * penalty[pairs.gt], len(targets), self.topk)
        ltrb = ltrb_distances(priors.points[pairs.prior], priors.inset(targets.boxes)[pairs.gt])
        best &= ltrb.amin(-1) > self.margin
        best = best_per_prior(pairs, iou, priors, targets.num_images, among=best)
        return Assignment(pairs[best])  # host synchronisation: the number of positives


def _largest_distances(priors: Priors, targets: Targets) -> Tensor:
    """[G] largest distance in the ground truth's image between any point and any ground truth's centre.

    This point is one of the corners of a level's grid.
    """
    starts = priors.level_starts
    corners = [
        start + (row * w + column) * priors.per_cell
        for start, (h, w) in zip(starts[:-1], priors.grid_sizes, strict=True)
        for row in (0, h - 1)
        for column in (0, w - 1)
    ]
    points = priors.points[constant(tuple(corners), priors.points.device, torch.int64)]
    distance = (points - targets.centers.unsqueeze(1)).norm(dim=-1).amax(1)
    largest = distance.new_zeros(targets.num_images).scatter_reduce_(0, targets.image, distance, "amax")
    return largest[targets.image]
