"""CondInst's losses of masks at the assignment's pairs, and of its auxiliary semantic branch (ECCV 2020)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from la_det.modeling.criteria.decision import Decision
from la_det.modeling.criteria.reduction import LossTerm
from la_det.modeling.heads.dynamic_mask_head import mask_logits
from la_det.structures import Assignment, DensePredictions, Targets, on_device

# Instances whose intermediate maps exist at a time, 3 MB each at 800 x 1333. The backward pass computes them again.
_CHUNK = 32


@dataclass(frozen=True)
class MaskLoss:
    """Dice loss (V-Net, 3DV 2016) of every positive's mask, averaged over this process's positives.

    Attributes:
        weight: factor of the loss.
    """

    weight: float = 1.0

    def __call__(self, decision: Decision) -> LossTerm:
        dice = dice_of_pairs(decision.predictions, decision.targets, decision.assignment)
        num_positives = torch.full((), len(dice), dtype=torch.float32, device=dice.device)
        return LossTerm(dice.sum(), num_positives, weight=self.weight, scope="local")


def dice_of_pairs(predictions: DensePredictions, targets: Targets, assignment: Assignment) -> Tensor:
    """Dice loss [P] of each pair's mask, at half the stride of the mask features; maps of few pairs exist at a time."""
    pairs, priors = assignment.pairs, predictions.priors
    features = predictions.image_maps["mask_features"]
    h, w = features.shape[-2:]
    stride = priors.level_strides[0] // 2
    masks = targets.masks.sample(stride // 2, stride, (2 * h, 2 * w))
    parameters = predictions.at("controller", pairs.image, pairs.prior)

    def dice(chunk: Tensor) -> Tensor:
        image, prior = pairs.image[chunk], pairs.prior[chunk]
        points, strides = priors.points[prior], priors.strides[prior]
        logits = mask_logits(features, priors.points[: h * w], image, parameters[chunk], points, strides)
        return dice_loss(logits.sigmoid().flatten(1), masks[pairs.gt[chunk]].flatten(1).float())

    chunks = torch.arange(len(pairs), device=features.device).split(_CHUNK)
    return torch.cat([checkpoint(dice, c, use_reentrant=False, preserve_rng_state=False) for c in chunks])


def dice_loss(a: Tensor, b: Tensor, eps: float = 1e-5) -> Tensor:
    """Dice loss [n] of each row of a and b [n, pixels]: 1 - 2 sum(a b) / (sum(a^2) + sum(b^2) + eps)."""
    return 1 - 2 * (a * b).sum(1) / (a.square().sum(1) + b.square().sum(1) + eps)


@dataclass(frozen=True)
class SemanticLoss:
    """Focal loss (Lin et al., ICCV 2017) of the semantic branch, divided by this process's foreground cells.

    Attributes:
        alpha, gamma: parameters of the focal loss.
        weight: factor of the loss.
    """

    alpha: float = 0.25
    gamma: float = 2.0
    weight: float = 1.0

    def __call__(self, decision: Decision) -> LossTerm:
        logits, stride = decision.predictions.image_maps["semantic"], decision.predictions.priors.level_strides[0]
        num_classes, *size = logits.shape[1:]
        classes = semantic_targets(decision.targets, num_classes, stride, tuple(size))
        one_hot = F.one_hot(classes, num_classes + 1)[..., :-1].permute(0, 3, 1, 2).to(logits.dtype)
        loss = sigmoid_focal_loss(logits, one_hot, self.alpha, self.gamma, reduction="sum")
        return LossTerm(loss, (classes < num_classes).sum(), weight=self.weight, scope="local")


def semantic_targets(targets: Targets, num_classes: int, stride: int, size: tuple[int, int]) -> Tensor:
    """Class of the smallest instance that covers the middle pixel of each cell: [N, *size], K for background."""
    masks = targets.masks.sample(stride // 2, stride, size)
    by_area = targets.masks.areas.argsort(stable=True)
    rank = torch.empty_like(by_area)
    rank[by_area] = torch.arange(len(by_area), device=by_area.device)
    ranks = torch.where(masks, rank[:, None, None], len(rank))
    smallest = ranks.new_full((targets.num_images, *size), len(rank))
    smallest.scatter_reduce_(0, targets.image[:, None, None].expand_as(ranks), ranks, "amin")
    classes = torch.cat([targets.classes[by_area], on_device([num_classes], by_area.device)])
    return classes[smallest]
