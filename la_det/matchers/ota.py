"""OTA: optimal transport assignment (Ge et al., CVPR 2021, arXiv 2103.14259)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from la_det.geometry import FLOAT32_EPS, aligned_iou
from la_det.losses.focal import focal_entries
from la_det.steps.candidates import center_windows, every_pair, everywhere, ltrb_of_pairs
from la_det.steps.select import Transport, best_in_group
from la_det.structures import Assignment, DensePredictions, Pairs, Score, Targets, count, true_indices

# Cost of a location that is no candidate. Only ground truths without any candidate meet it.
OUTSIDE = 1e6
# A candidate is more than so many pixels away from every side of its ground truth.
MARGIN = 0.01
# A background that has to supply less than this (more labels than locations) supplies this.
LEAST = 1e-8


@dataclass(frozen=True, kw_only=True)
class OTA:
    """Labels are transported to locations: each ground truth supplies k positive ones, the background all others.

    A label costs what the location's training loss with it would be: the focal loss over all classes and, for a ground
    truth, `reg_weight` times -ln IoU of the predicted box. Candidates of a ground truth are the locations inside it and
    inside a square around its centre; k is the sum of the `topk` largest predicted IoUs among them, rounded down, at
    least 1. A ground truth without candidates takes part with all locations. Sinkhorn's algorithm finds a cheap plan in
    which every location gets one label; each takes the label of which it gets most, in shares of what the label's best
    location gets (of equal ones the first ground truth, before the background).

    Needs one prior per cell.

    Attributes:
        center_radius: half side of the square in strides.
        topk: IoUs that are summed.
        reg_weight: lambda, weight of the box loss.
        alpha: of the focal loss.
        eps: strength of Sinkhorn's entropic regularisation, in units of the cost.
        iterations: of Sinkhorn's algorithm.
    """

    center_radius: float = 2.5
    topk: int = 20
    reg_weight: float = 1.5
    alpha: float = 0.25
    eps: float = 0.1
    iterations: int = 50

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        pairs, transport = self.transport(predictions, targets, score)
        share, _ = transport.shares(self.eps, self.iterations)
        share = share.nan_to_num(nan=torch.inf)  # NaN wins, so that a diverged prediction shows in the losses
        best = best_in_group(transport.column, share, transport.num_columns)
        return Assignment(pairs[best[: len(pairs)]])  # host synchronisation: how many are positive

    def transport(self, predictions: DensePredictions, targets: Targets, score: Score) -> tuple[Pairs, Transport]:
        """The pairs that take part, ordered by ground truth, and the problem, whose first entries are theirs.

        Its rows are the G ground truths and then the N backgrounds, its columns locations. Costs are what a location
        costs more than as background: no plan depends on what all labels of a location cost more.
        """
        priors, num_images = predictions.priors, targets.num_images
        window, inside = center_windows(priors, targets, self.center_radius)
        pairs = every_pair(window, targets)
        inside = inside.flatten() & (ltrb_of_pairs(pairs, priors, targets).amin(1) > MARGIN)
        bare = ~inside.view_as(window).any(1)
        used = torch.zeros(num_images * len(priors), dtype=torch.bool, device=bare.device)
        used.index_put_((pairs.location(len(priors)),), inside, accumulate=True)
        without = used.new_zeros(num_images).index_put_((targets.image,), bare, accumulate=True)
        used = (used.view(num_images, -1) | without.unsqueeze(1)).flatten()
        candidates, location, bare_gts = true_indices(inside, used, bare)  # host synchronisation: how many there are

        pairs = pairs[candidates]
        iou = self.iou(predictions, targets, pairs)
        ious = iou.new_zeros(window.numel()).index_copy_(0, candidates, iou).view(window.shape)
        k = ious.topk(min(self.topk, ious.shape[1])).values.sum(1).floor_().clamp_(min=1)
        if len(bare_gts):
            pairs = Pairs.cat([pairs, everywhere(bare_gts, targets, len(priors))])
            pairs = pairs[pairs.gt.argsort(stable=True)]
            iou = self.iou(predictions, targets, pairs)

        classes = targets.classes.index_select(0, pairs.gt)
        positive, negative = focal_entries(
            score, *score.logits_at(predictions, pairs.image, pairs.prior, classes), self.alpha
        )
        # As background a location costs the loss of all classes; as a positive, that of one class is exchanged.
        cost = positive - negative - self.reg_weight * iou.clamp(min=FLOAT32_EPS).log()
        cost = cost.double() + OUTSIDE * bare.index_select(0, pairs.gt)  # single precision would round it to sixteenths
        image = location.div(len(priors), rounding_mode="floor")
        column = (used.cumsum(0) - 1).index_select(0, pairs.location(len(priors)))
        rest = (len(priors) - k.new_zeros(num_images).index_add_(0, targets.image, k)).clamp(min=LEAST)
        free = len(priors) - count(image, num_images)
        return pairs, Transport(
            row=torch.cat([pairs.gt, len(targets) + image]),
            column=torch.cat([column, torch.arange(len(location), device=column.device)]),
            cost=F.pad(cost, (0, len(location))),
            supply=torch.cat([k, rest]),
            free=torch.cat([torch.zeros_like(targets.image), free]),
            num_columns=len(location),
        )

    @staticmethod
    def iou(predictions: DensePredictions, targets: Targets, pairs: Pairs) -> Tensor:
        """[P] of the predicted boxes, relative to their locations: small ones keep their precision."""
        priors = predictions.priors
        raw = predictions.at("boxes", pairs.image, pairs.prior)
        gt_boxes = targets.boxes.index_select(0, pairs.gt) - priors.points_twice.index_select(0, pairs.prior)
        return aligned_iou(predictions.codec.decode(raw, priors.at_origin(), pairs.prior), gt_boxes)
