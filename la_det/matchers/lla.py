"""LLA: loss-aware label assignment (Ge et al., Neurocomputing 2021, arXiv 2101.04307)."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from la_det.geometry import FLOAT32_EPS, aligned_iou
from la_det.losses.focal import focal_entries
from la_det.steps.candidates import inside_box, overlapping_pairs
from la_det.steps.select import best_per_prior, rank_in_group
from la_det.structures import Assignment, DensePredictions, Pairs, Score, Targets, constant, count, true_indices

# Cost of a location outside the box. A location that costs less lies inside.
OUTSIDE = 1000.0
# A point lies inside a box if it is more than this many pixels away from each side.
MARGIN = 0.01
# Upper bound of the pairs that are looked at together, besides those inside boxes.
_MAX_PAIRS = 1 << 20


class LLA:
    """Each ground truth takes the `topk` locations, over all levels, where its own training loss would be smallest.

    The joint cost of a location is the focal loss over all classes with the ground truth's class as target, plus
    `reg_weight` times -ln IoU of the predicted box, plus 1000 if the location lies outside the ground truth. So a tiny
    ground truth takes locations around it. If several ground truths take one location, it goes to the ground truth of
    the image for which it costs least. So a ground truth may end with fewer locations than `topk`, or with more.

    The branch needs one prior per cell and predicts its distances to the sides, which are not negative.

    Args:
        topk: K, the locations that a ground truth takes.
        reg_weight: lambda, weight of the box loss.
        alpha: weight of positives in the focal loss.
    """

    def __init__(self, *, topk: int = 10, reg_weight: float = 1.5, alpha: float = 0.25):
        self.topk = topk
        self.reg_weight = reg_weight
        self.alpha = alpha

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        cost = self.joint_cost(predictions, targets, score)
        k = min(self.topk, len(predictions.priors))

        inside = inside_box(predictions.priors, targets)
        cost_inside = cost(inside)
        num_below = torch.zeros_like(targets.image).index_add_(0, inside.gt, (cost_inside < OUTSIDE).long())

        order, rank = rank_in_group(inside.gt, -cost_inside, len(targets))
        wanted = rank < (k * (num_below >= k))[inside.gt]  # pairs are ordered by ground truth, before and after
        wanted, others = true_indices(wanted, num_below < k)  # host synchronisation
        taken = inside[order[wanted]]
        if len(others):
            taken = Pairs.cat([taken, *take_from_all(cost, others, k)])
        return Assignment(resolve_conflicts(cost, taken, inside, cost_inside))

    def joint_cost(self, predictions: DensePredictions, targets: Targets, score: Score) -> "JointCost":
        """A function that gives the cost of any pairs, from tables over all locations."""
        logits = predictions.joined("logits")
        gate = None if score.gate is None else predictions.joined(score.gate)
        positive, negative = focal_entries(score, logits, gate, self.alpha)
        cost_cls = negative.sum(1, keepdim=True) - negative + positive
        at_origin = replace(predictions, priors=predictions.priors.at_origin())
        return JointCost(cost_cls, at_origin.boxes(), self.reg_weight, predictions, targets)


@dataclass(frozen=True)
class JointCost:
    """cost = cost_cls + lambda cost_reg + 1000 [outside].

    Attributes:
        cost_cls: [N, K, R] focal loss over all classes of each location, if class k were its target.
        boxes: [N, R, 4] predicted boxes, XYXY pixels relative to the location: small boxes keep their precision.
        reg_weight: lambda.
        predictions, targets: predictions and ground truths of the batch.
    """

    cost_cls: Tensor
    boxes: Tensor
    reg_weight: float
    predictions: DensePredictions
    targets: Targets

    def __call__(self, pairs: Pairs) -> Tensor:
        """Cost of each pair: [P] float32."""
        _, num_classes, num_priors = self.cost_cls.shape
        location = entry = pairs.location(num_priors)
        if num_classes > 1:
            classes = self.targets.classes.index_select(0, pairs.gt)
            entry = (pairs.image * num_classes + classes) * num_priors + pairs.prior
        boxes = self.boxes.flatten(0, 1).index_select(0, location)
        points = self.predictions.priors.points_twice.index_select(0, pairs.prior)
        gt_boxes = self.targets.boxes.index_select(0, pairs.gt) - points
        log_iou = aligned_iou(boxes, gt_boxes).clamp_(min=FLOAT32_EPS).log_()
        ltrb = gt_boxes * constant((-1.0, -1.0, 1.0, 1.0), gt_boxes.device, gt_boxes.dtype)
        cost_cls = self.cost_cls.flatten().index_select(0, entry)
        return cost_cls.sub_(log_iou, alpha=self.reg_weight).add_(ltrb.amin(1) <= MARGIN, alpha=OUTSIDE)


def take_from_all(cost: JointCost, gts: Tensor, k: int) -> list[Pairs]:
    """The k cheapest of all locations, for the ground truths [g] that have fewer than k locations inside.

    Only two kinds of locations matter: those whose predicted box overlaps the ground truth, and the k of smallest
    cost_cls in the image. A predicted box contains its location. So any other location lies outside, has the largest
    possible cost_reg, and costs at least as much as each of these k.
    """
    targets, num_priors = cost.targets, len(cost.predictions.priors)
    boxes = cost.predictions.boxes()
    # Rounding must not lose a pair that overlaps.
    rounding = constant((-MARGIN, -MARGIN, MARGIN, MARGIN), boxes.device, boxes.dtype)
    cheapest = cost.cost_cls.topk(k, largest=False).indices  # [N, K, k]
    is_cheapest = torch.zeros_like(cost.cost_cls, dtype=torch.bool).scatter_(2, cheapest, True)
    taken = []
    for gt in gts.split(max(_MAX_PAIRS // num_priors, 1)):
        image, classes = targets.image[gt], targets.classes[gt]
        some = replace(targets, boxes=targets.boxes[gt] + rounding, image=image)
        overlapping = overlapping_pairs(boxes, some, slice(0, len(gt)))
        every = torch.arange(len(gt), device=gt.device).unsqueeze(1).expand(-1, k).flatten()
        row = torch.cat([every, overlapping.gt])
        prior = torch.cat([cheapest[image, classes].flatten(), overlapping.prior])
        pairs = Pairs(image[row], prior, gt[row])
        twice = is_cheapest[overlapping.image, classes[overlapping.gt], overlapping.prior]
        value = (-cost(pairs)).masked_fill(F.pad(twice, (len(every), 0)), -torch.inf)
        best, rank = rank_in_group(row, value, len(gt))
        taken.append(pairs[best[rank < k]])  # host synchronisation
    return taken


def resolve_conflicts(cost: JointCost, taken: Pairs, inside: Pairs, cost_inside: Tensor) -> Pairs:
    """One ground truth per location.

    It is the location's only taker or, if there are several, the image's ground truth of least cost (ties: the first).

    Args:
        taken: (location, ground truth), each once.
        inside, cost_inside: all pairs whose location lies inside, and their costs. Costs below 1000 decide first.
    """
    priors, num_images = cost.predictions.priors, cost.targets.num_images
    taken_at = taken.location(len(priors))
    contested = count(taken_at, num_images * len(priors)) > 1
    decisive = contested[inside.location(len(priors))] & (cost_inside < OUTSIDE)
    alone, decisive = true_indices(~contested[taken_at], decisive)  # host synchronisation
    rivals = inside[decisive]
    best = best_per_prior(rivals, -cost_inside[decisive], priors, num_images)
    decided = torch.zeros_like(contested).index_put_((rivals.location(len(priors)),), best, accumulate=True)
    best, open_locations = true_indices(best, contested & ~decided)  # host synchronisation
    winners = [taken[alone], rivals[best]]
    for some in open_locations.split(max(_MAX_PAIRS // max(len(cost.targets), 1), 1)):
        image, prior = some.div(len(priors), rounding_mode="floor"), some % len(priors)
        gt = torch.arange(len(cost.targets), device=some.device).expand(len(some), -1)
        same_image = (image.unsqueeze(1) == cost.targets.image).flatten()
        rivals = Pairs(*(x.expand_as(gt).flatten() for x in (image.unsqueeze(1), prior.unsqueeze(1), gt)))
        value = (-cost(rivals)).nan_to_num(nan=torch.inf)  # a location with NaN must not vanish
        best = best_per_prior(rivals, value, priors, num_images, among=same_image)
        winners.append(rivals[best])  # host synchronisation
    return Pairs.cat(winners)
