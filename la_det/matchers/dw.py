"""DW: dual weighting (Li et al., CVPR 2022).

No location is simply positive or negative. Each location inside a ground truth's box has a positive weight for this
ground truth. Each (location, class) has a negative weight. The two weights are independent. Constants are those of the
official code, which gives the published AP and differs from the paper's formulas in details (projects/DW/README.md).
"""

import torch
from torch import Tensor

from la_det.geometry import aligned_giou, aligned_iou
from la_det.steps.candidates import inside_box
from la_det.steps.select import last_of_class
from la_det.structures import Assignment, DensePredictions, Negatives, Pairs, Priors, Score, Targets, true_indices

BETA = 5.0  # localisation against classification
MU, MU_SUM = 5.0, 3.0  # sharpness of the positive weight, and of the sum that normalises it
SIGMA = 1.11  # standard deviation of the centre prior, strides
GIOU_EPS = 1e-6  # square pixels


class DW:
    """Positive weights of all pairs inside ground-truth boxes on all levels, and the negative weights that are not 1.

    Pairs whose positive weight underflows to 0 (further than about 15 strides from the centre) are left out.

    Args:
        soft_prior: form of the centre prior.
            True: a Gaussian.
            False: 1 where the Gaussian exceeds 0.3, 0 elsewhere.
    """

    def __init__(self, *, soft_prior: bool = True):
        self.soft_prior = soft_prior

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        pairs = inside_box(predictions.priors, targets)
        boxes = predictions.boxes_at(pairs.image, pairs.prior)
        iou = aligned_iou(boxes, targets.boxes[pairs.gt], GIOU_EPS)
        closeness = center_prior(predictions.priors, targets, pairs, self.soft_prior)
        lowered = (iou >= 0.5) & last_of_class(pairs, targets, len(predictions.priors), predictions.num_classes)
        # Host synchronisation: the numbers of lowered negative weights and of positives.
        lowered, near = true_indices(lowered, closeness != 0)
        negatives = negative_weights(pairs, iou, lowered, targets)

        pairs, boxes, closeness = pairs[near], boxes[near], closeness[near]
        p_cls = score.at(predictions, pairs.image, pairs.prior, targets.classes[pairs.gt])
        weight = positive_weights(pairs, p_cls, boxes, closeness, targets)
        return Assignment(pairs, weight=weight, negatives=negatives)


def center_prior(priors: Priors, targets: Targets, pairs: Pairs, soft: bool = True) -> Tensor:
    """Centre prior exp(-d^2 / (2 sigma^2)) of each pair [P]; d is the distance to the box's centre in strides."""
    distance = (priors.points[pairs.prior] - targets.centers[pairs.gt]) / priors.strides[pairs.prior].unsqueeze(-1)
    gaussian = (distance.square().sum(-1) / (-2 * SIGMA**2)).exp()
    return gaussian if soft else (gaussian > 0.3).float()


def positive_weights(pairs: Pairs, p_cls: Tensor, boxes: Tensor, closeness: Tensor, targets: Targets) -> Tensor:
    """w_pos of each pair [P] (section "positive weighting function").

    It grows with the consistency t of classification and localisation. The sum that normalises a ground truth's
    weights is less sharp than the weights. So the weights sum to 1 or somewhat more.
    """
    p_loc = (BETA * (aligned_giou(boxes, targets.boxes[pairs.gt], GIOU_EPS) - 1)).exp()
    t = p_cls * p_loc
    total = t.new_zeros(len(targets)).index_add_(0, pairs.gt, closeness * (MU_SUM * t).exp() * t)
    return closeness * (MU * t).exp() * t / total.clamp(min=1e-12)[pairs.gt]


def negative_weights(pairs: Pairs, iou: Tensor, lowered: Tensor, targets: Targets) -> Negatives:
    """w_neg where it can differ from 1 (section "negative weighting function").

    w_neg is 1 below an IoU of 0.5. From there it falls linearly in IoU^2 to 0 at a ground truth's best pair. If the
    worst IoU inside the box is above 0.5, the fall starts at this IoU. If several ground truths of one class contain a
    location, the last one decides.

    Args:
        pairs: all (location, ground truth) with the location inside the box.
        iou: [P] IoU of the predicted boxes.
        lowered: [Q] indices of the pairs with an IoU of at least 0.5 that decide.
        targets: the batch's ground truths.
    """
    best = iou.new_zeros(len(targets)).scatter_reduce_(0, pairs.gt, iou, "amax")
    worst = iou.new_ones(len(targets)).scatter_reduce_(0, pairs.gt, iou, "amin")
    lowest, highest = _fall(best), _fall(worst).clamp(max=1)

    pairs, iou = pairs[lowered], iou[lowered]
    # A ground truth with one pair, or with equal IoUs, has 0 / 0 here: eps makes the weight 1, as in the official code.
    eps = 1e-12
    low, high = lowest[pairs.gt], highest[pairs.gt]
    weight = (_fall(iou) - low + eps) / (high - low + eps)
    return Negatives(pairs.image, pairs.prior, targets.classes[pairs.gt], weight)


def _fall(iou: Tensor) -> Tensor:
    """1 at an IoU of 0.5, 0 at 1, linear in IoU^2."""
    return 4 / 3 * (1 - iou * iou)
