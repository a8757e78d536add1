"""ATSS: adaptive training sample selection (Zhang et al., CVPR 2020, section 4)."""

import torch
from torch import Tensor

from la_det.losses.box_iou import aligned_iou
from la_det.matchers.candidates import ltrb_distances
from la_det.matchers.nearest import nearest_priors
from la_det.matchers.selection import best_per_prior
from la_det.structures import Assignment, DensePredictions, Pairs, Priors, Score, Targets


class ATSS:
    """Positives are the anchors near a ground truth whose IoU is at least the mean plus the deviation of all near ones.

    Args:
        topk: k, the cells of each level whose centres are nearest to the ground truth's centre and whose anchors are
            its candidates.
        margin: distance by which an anchor's centre must lie inside the ground truth, exclusive, pixels.
    """

    def __init__(self, *, topk: int = 9, margin: float = 0.01):
        self.topk = topk
        self.margin = margin

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        priors = predictions.priors
        candidates = nearest_priors(priors, targets, self.topk)
        iou = aligned_iou(priors.boxes[candidates], targets.boxes.unsqueeze(1))
        return Assignment(select(candidates, iou, mean_plus_std(iou), priors, targets, self.margin)[0])


def mean_plus_std(iou: Tensor) -> Tensor:
    """[G] mean plus standard deviation (unbiased: NaN for a single candidate) of the candidates' IoUs [G, C]."""
    mean = iou.mean(1)
    variance = (iou - mean.unsqueeze(1)).square().sum(1) / (iou.shape[1] - 1)
    return mean + variance.sqrt()


def select(
    candidates: Tensor, iou: Tensor, threshold: Tensor, priors: Priors, targets: Targets, margin: float
) -> tuple[Pairs, Tensor]:
    """The candidates that reach the threshold with their centre inside; an anchor goes to its largest IoU.

    Args:
        candidates: [G, C] indices of priors.
        iou: [G, C], what is compared.
        threshold: [G]; NaN, from a single candidate's deviation, is not reached.
        priors, targets, margin: see `ATSS`.

    Returns:
        The positives, and where they are in the flattened `candidates`; ties go to the first ground truth.
    """
    ltrb = ltrb_distances(priors.points[candidates], priors.inset(targets.boxes).unsqueeze(1))
    positive = (iou >= threshold.unsqueeze(1)) & (ltrb.amin(-1) > margin)
    where = positive.flatten().nonzero().squeeze(1)  # host synchronisation: the number of candidates that are good
    gt = where.div(max(candidates.shape[1], 1), rounding_mode="floor")
    pairs = Pairs(targets.image[gt], candidates.flatten()[where], gt)
    best = best_per_prior(pairs, iou.flatten()[where], priors, targets.num_images)
    best = best.nonzero().squeeze(1)  # host synchronisation: the number of positives
    return pairs[best], where[best]
