"""AutoAssign: differentiable label assignment (Zhu et al., arXiv 2007.03496).

No location is simply positive or negative: each one inside a ground truth's box, on every level, is a weighted positive
and a weighted negative of its class. Positive weights carry gradient, so that the assignment is trained with the
network. Constants are those of the official code.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from la_det.geometry import aligned_giou
from la_det.steps.candidates import inside_box, largest_iou, meeting_runs
from la_det.steps.select import last_of_class
from la_det.structures import Assignment, DensePredictions, Negatives, Pairs, Priors, Score, Targets, true_indices

LAMBDA = 5.0  # of the localisation probability exp(-lambda (1 - GIoU))
TAU = 3.0  # of the positive weight exp(tau P)
EPS = 1e-12
MIN_SIGMA = 1e-3  # strides; the centre prior of a smaller one would be 0 / 0 at its own centre


@dataclass(frozen=True)
class SoftAssignment(Assignment):
    """Weights of pairs as functions of the predictions and of the centre prior's parameters.

    `weight`, `closeness` and `confidence` carry gradient.

    Attributes:
        closeness: [P] g, the centre prior.
        confidence: [P] P, class probability times localisation probability.
    """

    closeness: Tensor | None = None
    confidence: Tensor | None = None

    per_pair: ClassVar[tuple[str, ...]] = (*Assignment.per_pair, "closeness", "confidence")


class AutoAssign(nn.Module):
    """Positive weights w for the pairs inside ground-truth boxes, and negative weights v where they may not be 1.

    The centre prior is a Gaussian for each class, learnt: (mu, sigma) are parameters, in strides of a location's level.

    Args:
        num_classes: K.
    """

    differentiable = True

    def __init__(self, *, num_classes: int = 80):
        super().__init__()
        self.mu = nn.Parameter(torch.zeros(num_classes, 2))
        self.sigma = nn.Parameter(torch.ones(num_classes, 2))

    def forward(
        self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float
    ) -> SoftAssignment:
        pairs = inside_box(predictions.priors, targets)
        g = self.center_prior(predictions.priors, targets, pairs)
        p = joint_confidence(predictions, targets, pairs, score)
        w = positive_weights(pairs, g, p, len(targets))
        negatives = negative_weights(predictions.detach(), targets, pairs)
        return SoftAssignment(pairs, weight=w, negatives=negatives, closeness=g, confidence=p)

    def center_prior(self, priors: Priors, targets: Targets, pairs: Pairs) -> Tensor:
        """g [P]: exp(-(d - mu)^2 / (2 sigma^2)) over x and y, d in strides from the centre of the box."""
        mu, sigma = self.mu[targets.classes], self.sigma[targets.classes]  # [G, 2]
        variance = sigma.square().clamp(min=MIN_SIGMA**2)
        of_gt = torch.cat([mu, -0.5 / variance], 1).index_select(0, pairs.gt)
        distance = (priors.points[pairs.prior] - targets.centers[pairs.gt]) / priors.strides[pairs.prior].unsqueeze(-1)
        return ((distance - of_gt[:, :2]).square() * of_gt[:, 2:]).sum(1).exp()


def joint_confidence(predictions: DensePredictions, targets: Targets, pairs: Pairs, score: Score) -> Tensor:
    """P [P], the class probability times exp(-lambda (1 - GIoU))."""
    p_cls = score.at(predictions, pairs.image, pairs.prior, targets.classes[pairs.gt])
    giou = aligned_giou(predictions.boxes_at(pairs.image, pairs.prior), targets.boxes[pairs.gt])
    return p_cls * (LAMBDA * (giou - 1)).exp()


def positive_weights(pairs: Pairs, g: Tensor, p: Tensor, num_gts: int) -> Tensor:
    """w [P]: exp(tau P) g, in shares of each ground truth's sum."""
    w = (TAU * p).exp() * g
    total = w.new_zeros(num_gts).index_add(0, pairs.gt, w)
    return w / total.clamp(min=EPS)[pairs.gt]


@torch.no_grad()
def negative_weights(predictions: DensePredictions, targets: Targets, pairs: Pairs) -> Negatives:
    """v where it may not be 1.

    It falls with the largest IoU m of the location's box and any ground truth of the image, also of another class, as
    1 / (1 - m) grows, from 1 at a ground truth's worst location to 0 at its best. Of several ground truths of one class
    that contain a location, the last one decides.
    """
    boxes, num_priors = predictions.boxes(), len(predictions.priors)
    last = last_of_class(pairs, targets, num_priors, predictions.num_classes)
    # Host synchronisation: the numbers of runs of boxes that meet ground truths, and of weights.
    runs, last = true_indices(meeting_runs(boxes, targets).flatten(), last)
    m = largest_iou(boxes, targets, runs)[pairs.image, pairs.prior]
    x = 1 / (1 - m).clamp_(min=EPS)
    best = x.new_zeros(len(targets)).scatter_reduce_(0, pairs.gt, x, "amax")
    worst = x.new_full((len(targets),), torch.inf).scatter_reduce_(0, pairs.gt, x, "amin")

    pairs, x = pairs[last], x[last]
    # A ground truth with one location, or with locations of one m, has 0 / 0 here: EPS makes v 0, as officially.
    v = 1 - (x - worst[pairs.gt] + EPS) / (best - worst + EPS)[pairs.gt]
    return Negatives(pairs.image, pairs.prior, targets.classes[pairs.gt], v)
