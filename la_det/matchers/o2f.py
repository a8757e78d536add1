"""o2f: one-to-few assignment (Li et al., CVPR 2023, arXiv 2303.11567)."""

import torch
from torch import Tensor

from la_det.errors import UserError
from la_det.geometry import aligned_iou
from la_det.steps.candidates import center_region
from la_det.steps.score import matching_quality
from la_det.steps.select import best_in_group, best_per_prior, topk_in_group
from la_det.structures import Assignment, DensePredictions, Pairs, Priors, Score, Targets


class O2F:
    """One certain positive per ground truth, and up to `topk` - 1 soft positives, positive and negative at once.

    The soft targets fall from epoch to epoch: early training resembles one-to-many assignment, late training
    one-to-one.

    Args:
        topk: K, the largest number of positives of a ground truth.
        alpha: weight of localisation against classification in the quality q = p^(1 - alpha) IoU^alpha.
        center_radius: half side of the candidate region in strides.
        soft_weight: weight of the classification loss of soft positives.
        soft_targets: target T of a ground truth's most probable soft positive in the first and in the last epoch.
        num_epochs: E, the number of values of T, which changes linearly from epoch to epoch.
        mask_centers: the candidate region surrounds the centroid of the ground truth's mask instead of its box's
            centre (CondInst).
    """

    def __init__(
        self,
        *,
        topk: int = 7,
        alpha: float = 0.8,
        center_radius: float = 1.5,
        soft_weight: float = 0.4,
        soft_targets: tuple[float, float] = (0.6, 0.2),
        num_epochs: int = 12,
        mask_centers: bool = False,
    ):
        self.topk = topk
        self.alpha = alpha
        self.center_radius = center_radius
        self.soft_weight = soft_weight
        self.soft_targets = soft_targets
        self.num_epochs = num_epochs
        self.mask_centers = mask_centers

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        priors, num_gts = predictions.priors, len(targets)
        pairs, inside = self.region(priors, targets)
        p, q = self.matching_quality(predictions, targets, pairs, score)
        # NaN wins, so that a diverged prediction shows in the losses.
        q = q.nan_to_num(nan=torch.inf).masked_fill(~inside, 0)
        few = topk_in_group(pairs.gt, q, num_gts, self.topk)
        few &= q > 0  # a predicted box that misses the ground truth is no candidate, nor is p that underflows
        # If several ground truths choose one location, the one of largest quality keeps it. Others get no substitute.
        few = best_per_prior(pairs, q, priors, targets.num_images, among=few)
        few = few.nonzero().squeeze(1)  # host synchronisation: the number of positives
        pairs, p, q = pairs[few], p[few], q[few]

        certain = best_in_group(pairs.gt, q, num_gts)
        largest = p.new_zeros(num_gts).scatter_reduce_(0, pairs.gt, p.masked_fill(certain, 0), "amax")
        target = self.largest_soft_target(progress) * p / largest[pairs.gt]  # x / 0 without soft positives
        weight = torch.full_like(p, self.soft_weight).masked_fill_(certain, 1)
        return Assignment(pairs, weight=weight, target=target.masked_fill_(certain, 1))

    def region(self, priors: Priors, targets: Targets) -> tuple[Pairs, Tensor]:
        """Pairs [P], and [P] bool whether a pair is in its ground truth's candidate region; all these are listed.

        Raises:
            UserError: the regions surround mask centroids, and there are no masks.
        """
        if self.mask_centers and targets.masks is None:
            raise UserError(
                "instance segmentation trains on masks, and the examples have none; set "
                "dataloader.train.mapper.use_instance_mask=True and instance_mask_format=bitmask"
            )
        centers = targets.masks.centroids if self.mask_centers else targets.centers
        return center_region(priors, targets, self.center_radius, centers)

    def matching_quality(
        self, predictions: DensePredictions, targets: Targets, pairs: Pairs, score: Score
    ) -> tuple[Tensor, Tensor]:
        """p and q = p^(1 - alpha) IoU^alpha of each pair: [P] float32 each. Where p is 0, q is 0."""
        c, f = score.logits_at(predictions, pairs.image, pairs.prior, targets.classes[pairs.gt])
        iou = aligned_iou(predictions.boxes_at(pairs.image, pairs.prior), targets.boxes[pairs.gt], eps=1e-6)
        # Single-precision functions may differ in the last bit between elements that fill a vector register and other
        # elements. Rounded from double precision, ground truths with equal boxes and classes have equal qualities.
        p = score.log_probability(c.double(), None if f is None else f.double()).exp().float()
        return p, matching_quality(p.double(), iou.double(), self.alpha).float()

    def largest_soft_target(self, progress: float) -> float:
        """T of the epoch e = floor(progress E), which is constant inside an epoch."""
        # Progress is iteration / length, rounded, so the product can lie just below the integer that it should be. A
        # product that should be smaller than the integer is smaller by at least 1 / length, which is more than 1e-9.
        epoch = min(int(progress * self.num_epochs + 1e-9), self.num_epochs - 1)
        first, last = self.soft_targets
        return first + (last - first) * epoch / max(self.num_epochs - 1, 1)
