"""SimOTA, the assignment of YOLOX (Ge et al., arXiv 2107.08430): OTA without its transport."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from la_det.geometry import aligned_iou
from la_det.losses.cross_entropy import background_cross_entropy, cross_entropy_entries
from la_det.steps.candidates import (
    center_windows,
    every_pair,
    everywhere,
    in_any_box,
    in_center_region,
    overlapping_pairs,
)
from la_det.steps.select import best_per_prior, contested, rank_in_group
from la_det.structures import Assignment, DensePredictions, Pairs, Priors, Score, Targets, true_indices

NOT_OWN = 1e6  # added to the cost of a location that is not the ground truth's own: all of its own cost less
LEAST_UNION = 1e-6  # in the IoU, square pixels


@dataclass(frozen=True, kw_only=True)
class SimOTA:
    """Each ground truth takes the k locations that cost it least, its own ones before all others.

    Its own lie in a square around its centre. `inside_box` says which locations that are nobody's own can be taken. The
    cost is the cross entropy of the score over all classes, plus `box_weight` times -ln IoU of the predicted box. k is
    the sum of the `topk` largest predicted IoUs in the image, rounded down, at least 1. A location that several ground
    truths take goes to the one of all in the image for which it costs least (ties: the first); the others get no other.
    The predicted IoU is the soft target. Needs one prior per cell.

    The defaults are the rule of YOLOX's releases, with which its weights were trained. Its main branch has
    `center_radius=1.5, inside_box=False, iou_eps=1e-8` since 2023.

    Attributes:
        center_radius: half side of the square in strides.
        inside_box: own locations also lie inside the ground truth, and all inside any square or ground truth of the
            image can be taken. Otherwise only those inside a square can be.
        topk: IoUs that are summed.
        box_weight: weight of -ln IoU.
        iou_eps: added to the IoU in the logarithm.
    """

    center_radius: float = 2.5
    inside_box: bool = True
    topk: int = 10
    box_weight: float = 3.0
    iou_eps: float = 1e-7

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        priors, base = predictions.priors, background_cross_entropy(predictions, score)
        window, own, valid = self.regions(priors, targets)
        near = overlapping_pairs(predictions.boxes(), targets, slice(0, len(targets)))  # host synchronisation, twice
        # All pairs that can matter: the own ones, and those whose predicted box overlaps the ground truth.
        pairs, own = Pairs.cat([every_pair(window, targets), near]), own.flatten()
        is_valid = valid.flatten().index_select(0, near.location(len(priors)))
        exists = torch.cat([own, is_valid & ~self.is_own(near, priors, targets)])
        cost, iou = self.cost(predictions, targets, score, base, pairs)
        k = self.dynamic_k(iou[len(own) :].masked_fill(~is_valid, 0), near, len(targets))
        own = F.pad(own, (0, len(near)))
        best, doubtful = true_indices(*self.select(pairs, cost, own, exists, k, priors, targets))  # host sync.
        pairs, iou = pairs[best], iou[best]
        if len(doubtful):  # a predicted box without overlap may be among the cheapest: look at all of these images
            whole = valid.new_zeros(targets.num_images).index_fill_(0, targets.image[doubtful], True)
            kept = (~whole[pairs.image]).nonzero().squeeze(1)
            every = everywhere(whole[targets.image].nonzero().squeeze(1), targets, len(priors))
            own, exists = self.is_own(every, priors, targets), valid[every.image, every.prior]
            cost, every_iou = self.cost(predictions, targets, score, base, every)
            best = self.select(every, cost, own, exists, k, priors, targets)[0].nonzero().squeeze(1)
            pairs, iou = Pairs.cat([pairs[kept], every[best]]), torch.cat([iou[kept], every_iou[best]])
        return Assignment(pairs, target=iou)

    def regions(self, priors: Priors, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
        """Windows of own locations [G, W] with the mask of those that are, and [N, R] which locations may be taken."""
        square, inside = center_windows(priors, targets, self.center_radius, clipped=False)
        valid = torch.zeros(targets.num_images, len(priors), dtype=torch.bool, device=inside.device)
        location = every_pair(square, targets).location(len(priors))
        valid.view(-1).index_put_((location,), inside.flatten(), accumulate=True)
        if not self.inside_box:
            return square, inside, valid
        return *center_windows(priors, targets, self.center_radius), valid | in_any_box(priors, targets)

    def is_own(self, pairs: Pairs, priors: Priors, targets: Targets) -> Tensor:
        """[P] bool."""
        return in_center_region(pairs, priors, targets, self.center_radius, clipped=self.inside_box)

    def dynamic_k(self, iou: Tensor, pairs: Pairs, num_gts: int) -> Tensor:
        """k [G], a float, from the IoUs [P] of pairs with valid locations."""
        order, rank = rank_in_group(pairs.gt, iou, num_gts)
        largest = iou.index_select(0, order) * (rank < self.topk)
        k = iou.new_zeros(num_gts).index_add_(0, pairs.gt.index_select(0, order), largest)
        return k.nan_to_num_(nan=self.topk).floor_().clamp_(min=1)

    def cost(
        self, predictions: DensePredictions, targets: Targets, score: Score, base: Tensor, pairs: Pairs
    ) -> tuple[Tensor, Tensor]:
        """Costs [P], without what not being own adds, and IoUs [P] of pairs; with `background_cross_entropy` [N, R]."""
        location = pairs.location(len(predictions.priors))
        boxes = predictions.boxes().flatten(0, 1).index_select(0, location)
        iou = aligned_iou(boxes, targets.boxes.index_select(0, pairs.gt), LEAST_UNION)
        q = score.at(predictions, pairs.image, pairs.prior, targets.classes.index_select(0, pairs.gt))
        positive, negative = cross_entropy_entries(q)
        cost = base.flatten().index_select(0, location) + positive - negative
        return cost.sub_((iou + self.iou_eps).log_(), alpha=self.box_weight), iou

    def select(
        self, pairs: Pairs, cost: Tensor, own: Tensor, exists: Tensor, k: Tensor, priors: Priors, targets: Targets
    ) -> tuple[Tensor, Tensor]:
        """The positives [P] bool among the pairs that exist, and the ground truths [G] bool that may prefer others."""
        gt, other = pairs.gt, (~own).long()
        order, rank = rank_in_group(2 * gt + other, (-cost).masked_fill(~exists, -torch.inf), 2 * len(targets))
        num_own = torch.zeros_like(targets.image).index_add_(0, gt, own.long())
        rank = torch.empty_like(rank).index_copy_(0, order, rank) + other * num_own.index_select(0, gt)
        taken = exists & (rank < k.index_select(0, gt))
        among = exists & (taken | contested(pairs, taken, priors, targets.num_images))
        value = -(cost.double() + NOT_OWN * other)  # in single precision costs would become equal
        best = best_per_prior(pairs, value.nan_to_num_(nan=torch.inf), priors, targets.num_images, among)
        # Without overlap a location costs at least this.
        surely = taken & (own | (cost < -self.box_weight * math.log(self.iou_eps)))
        return best, torch.zeros_like(num_own).index_add_(0, gt, surely.long()) < k
