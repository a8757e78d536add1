"""TOOD's task-aligned sample assignment (Feng et al., ICCV 2021, section 3.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from la_det.geometry import aligned_iou
from la_det.steps.candidates import (
    center_windows,
    every_pair,
    ltrb_of_pairs,
    pairs_of_iou,
    smaller_extents,
    within_extents,
)
from la_det.steps.score import alignment, normalised_alignment
from la_det.steps.select import best_per_prior, topk_in_group
from la_det.structures import Assignment, DensePredictions, Pairs, Score, Targets

IOU_EPS = 1e-6  # square pixels
TARGET_EPS = 1e-7
NEAR = 1.5  # strides around the centre: locations that show how small an alignment cannot matter


class TOOD:
    """Positives of a ground truth are the `topk` locations of largest alignment, as far as they lie inside it.

    The alignment t = p^alpha u^beta joins the probability of its class and the IoU u of the predicted box. All
    locations of all levels compete, so that those outside take places away, and a ground truth can end with fewer
    positives than `topk`, or with none. A location that is positive for several goes to the one of largest u, of equal
    ones to the first. The soft target of a positive is its t, scaled so that the ground truth's largest one is its
    largest u.

    Needs one prior per cell.

    Args:
        topk: locations that a ground truth takes.
        alpha, beta: exponents of the probability and of the IoU.
        margin: distance by which a point must lie inside the ground truth, exclusive, pixels.
        pad_to: locations take part whose cell begins inside the image after padding its own size to a multiple of this;
            the others are background. None takes all.
    """

    def __init__(
        self,
        *,
        topk: int = 13,
        alpha: float = 1.0,
        beta: float = 6.0,
        margin: float = 0.01,
        pad_to: int | None = 32,
    ):
        self.topk = topk
        self.alpha = alpha
        self.beta = beta
        self.margin = margin
        self.pad_to = pad_to

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        priors, num_gts = predictions.priors, len(targets)
        pairs, t, u = self.alignments(predictions, targets, score)
        positive = topk_in_group(pairs.gt, t, num_gts, self.topk) & ~(t <= 0)  # NaN must not hide
        positive &= ltrb_of_pairs(pairs, priors, targets).amin(-1) > self.margin
        best = best_per_prior(pairs, u.nan_to_num(nan=torch.inf), priors, targets.num_images, among=positive)
        best = best.nonzero().squeeze(1)  # host synchronisation: the number of positives
        pairs, t, u = pairs[best], t[best], u[best]
        return Assignment(pairs, target=normalised_alignment(t, u, pairs.gt, num_gts, TARGET_EPS))

    def alignments(self, predictions: DensePredictions, targets: Targets, score: Score) -> tuple[Pairs, Tensor, Tensor]:
        """Pairs, ordered by ground truth, with t and u [P]: all that can be among the `topk`, and others.

        No t exceeds u^beta. So where some `topk` locations have at least a certain t, all of larger t have a certain u.
        """
        priors, boxes = predictions.priors, predictions.boxes()
        extents = smaller_extents(priors, targets, self.pad_to)
        counts = None if extents is None else within_extents(priors, extents).flatten()

        def align(pairs: Pairs, *masks: Tensor | None) -> tuple[Tensor, Tensor]:
            """t, 0 outside the masks [P], and u."""
            location, classes = pairs.location(len(priors)), targets.classes.index_select(0, pairs.gt)
            p = score.at(predictions, pairs.image, pairs.prior, classes)
            gt_boxes = targets.boxes.index_select(0, pairs.gt)
            u = aligned_iou(boxes.flatten(0, 1).index_select(0, location), gt_boxes, IOU_EPS)
            t = alignment(p, u, self.alpha, self.beta)
            for mask in (*masks, None if counts is None else counts.index_select(0, location)):
                t = t if mask is None else t.masked_fill(~mask, 0)
            return t, u

        prior, inside = center_windows(priors, targets, NEAR)
        t, _ = align(every_pair(prior, targets), inside.flatten())
        t = F.pad(t.view_as(inside), (0, self.topk))  # zeros where there are not enough such locations
        lowest = t.topk(self.topk).values[:, -1].nan_to_num(nan=0.0)
        pairs, mask = pairs_of_iou(boxes, targets, lowest ** (1 / self.beta))
        return pairs, *align(pairs, mask)
