"""DETR's bipartite matching (ECCV 2020, section 3.1) on dense predictions, as DATE's CrowdHuman recipes use it.

Every location is a candidate of every ground truth, wherever it is. But an optimum needs only a ground truth's cheapest
locations. Neighbouring locations form blocks, which have a lower bound of their costs. Only blocks that can hold a
cheapest location are looked into. The matching shows whether a ground truth needs more locations (`match_listed`); then
it gets more.
"""

import torch
from torch import Tensor

from la_det.geometry import aligned_giou, image_scales, relative_cxcywh
from la_det.steps.select import match_listed
from la_det.structures import Assignment, DensePredictions, Pairs, Priors, Score, Targets

ALPHA = 0.25  # weight of positives in the focal cost; gamma is 2
EPS = 1e-12  # added in the focal cost's logarithms
GIOU_EPS = 1e-6  # square pixels

SIDE = 4  # side of a block, cells
FEW = 80  # cheapest locations of each ground truth that are looked for at first
_CHUNK = 1 << 17  # pairs (block, ground truth) that are compared at a time


class Hungarian:
    """Each ground truth gets one location. The sum of their costs K is least:

        K = class_weight (focal cost) + l1_weight |b - b_gt|_1 - giou_weight GIoU(B, B_gt),

    with b = (cx, cy, w, h) of the box B relative to the size of the image before padding.
    """

    def __init__(self, *, class_weight: float = 2.0, l1_weight: float = 5.0, giou_weight: float = 2.0):
        self.class_weight = class_weight
        self.l1_weight = l1_weight
        self.giou_weight = giou_weight

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        costs = self.costs(predictions, targets, score)
        longest = max(1, *targets.counts)
        number = min(FEW, longest)
        gts = torch.arange(len(targets), device=targets.image.device)
        pairs, cost, rest = costs.cheapest(gts, number)
        while True:
            if number == longest:  # no optimum needs more than the g cheapest locations of a ground truth
                rest = rest.index_fill(0, gts, torch.inf)
            matched, unproved = match_listed(pairs, -cost, -rest, targets)
            gts = unproved.nonzero().squeeze(-1)  # host synchronisation: how many ground truths need more locations
            if len(gts) == 0:
                return Assignment(matched)
            number = longest
            more, more_cost, _ = costs.cheapest(gts, number)
            kept = (~unproved[pairs.gt]).nonzero().squeeze(1)  # host synchronisation
            gt, order = torch.cat([pairs.gt[kept], more.gt]).sort(stable=True)
            pairs = Pairs(targets.image[gt], torch.cat([pairs.prior[kept], more.prior])[order], gt)
            cost = torch.cat([cost[kept], more_cost])[order]

    def costs(self, predictions: DensePredictions, targets: Targets, score: Score) -> "Costs":
        """The costs of all locations, for a branch with one prior per cell."""
        return Costs(predictions, targets, score, self.class_weight, self.l1_weight, self.giou_weight)


class Costs:
    """Costs K of R locations, in T blocks of SIDE x SIDE neighbours, for G ground truths; computed where asked for.

    `prior` [T, SIDE^2] has the locations of each block; repetitions of the last location fill the last block.
    """

    def __init__(
        self,
        predictions: DensePredictions,
        targets: Targets,
        score: Score,
        class_weight: float,
        l1_weight: float,
        giou_weight: float,
    ):
        self.targets, self.l1_weight, self.giou_weight = targets, l1_weight, giou_weight
        order = _blockwise(predictions.priors)
        number = len(order)
        self.prior = torch.cat([order, order[-1:].expand(-number % SIDE**2)]).view(-1, SIDE**2)
        repeated = torch.arange(self.prior.numel(), device=order.device).view_as(self.prior) >= number

        levels = range(len(predictions.priors.grid_sizes))
        p = torch.cat([score.dense(predictions, level).squeeze(1).flatten(2) for level in levels], 2)
        cls_cost = (class_weight * focal_cost(p))[:, :, self.prior]
        self.cls_cost = cls_cost.masked_fill(repeated, torch.inf)  # [N, K, T, SIDE^2]
        boxes = predictions.boxes()
        scales = image_scales(targets)
        self.boxes = boxes.permute(2, 0, 1)[..., self.prior]  # [4, N, T, SIDE^2]
        self.b = relative_cxcywh(boxes, scales.unsqueeze(1)).permute(2, 0, 1)[..., self.prior]
        self.b_gt = relative_cxcywh(targets.boxes, scales[targets.image])  # [G, 4]

        # What bounds the costs in a block: [N, K, T], then [4, N, T] each, [2, N, T].
        self.least_cls_cost = self.cls_cost.amin(-1)
        lowest, highest = self.b.amin(-1), self.b.amax(-1)
        self.middle, self.half_range = (highest + lowest) / 2, (highest - lowest) / 2
        self.hulls = torch.cat([self.boxes[:2].amin(-1), self.boxes[2:].amax(-1)])
        areas = (self.boxes[2] - self.boxes[0]) * (self.boxes[3] - self.boxes[1])
        self.areas = torch.stack([areas.amin(-1), areas.amax(-1)])

    def at(self, gt: Tensor, block: Tensor) -> Tensor:
        """K of all locations of blocks [...] for ground truths [...]: [..., SIDE^2]; infinite for a repetition.

        NaN becomes minus infinity, which the matching reports as an error.
        """
        image = self.targets.image[gt]
        l1 = (self.b[:, image, block].movedim(0, -1) - self.b_gt[gt].unsqueeze(-2)).abs().sum(-1)
        boxes = self.boxes[:, image, block].movedim(0, -1)
        giou = aligned_giou(boxes, self.targets.boxes[gt].unsqueeze(-2), GIOU_EPS)
        cls_cost = self.cls_cost[image, self.targets.classes[gt], block]
        return _or_least(cls_cost + self.l1_weight * l1 - self.giou_weight * giou)

    def bound(self, gts: Tensor) -> Tensor:
        """Lower bound of K in each block for ground truths `gts` [g]: [g, T].

        The class cost is at least the block's least, and the distance of a coordinate at least that to the nearest one
        in the block. The intersection is at most that with the hull of the boxes, the union at least the larger box.
        """
        image = self.targets.image[gts]
        b_gt = self.b_gt[gts].T.unsqueeze(-1)  # [4, g, 1]
        l1 = ((b_gt - self.middle[:, image]).abs() - self.half_range[:, image]).clamp(min=0).sum(0)
        x1, y1, x2, y2 = self.targets.boxes[gts].T.unsqueeze(-1)
        left, top, right, bottom = self.hulls[:, image]
        width, height = right.minimum(x2) - left.maximum(x1), bottom.minimum(y2) - top.maximum(y1)
        smallest, largest = self.areas[:, image]
        intersection = (width.clamp(min=0) * height.clamp(min=0)).minimum(largest)
        union = smallest.maximum((x2 - x1) * (y2 - y1)).clamp(min=GIOU_EPS)
        cls_cost = self.least_cls_cost[image, self.targets.classes[gts]]
        bound = cls_cost + self.l1_weight * l1 - self.giou_weight * intersection / union
        return _or_least(bound - 1e-4)  # rounding must not lose a block

    def cheapest(self, gts: Tensor, number: int) -> tuple[Pairs, Tensor, Tensor]:
        """At least the `number` cheapest locations of each ground truth in `gts` [g].

        Returns:
            Pairs ordered by ground truth, their costs [P], and [g] a lower bound of the costs of all other locations.
        """
        parts = [self._cheapest(chunk, number) for chunk in gts.split(max(_CHUNK // len(self.prior), 1))]
        gt, prior, cost, rest = (torch.cat(x) for x in zip(*parts, strict=True))
        return Pairs(self.targets.image[gt], prior, gt), cost, rest

    def _cheapest(self, gts: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        bound = self.bound(gts)
        # The costs in the most promising blocks are an upper bound of the cheapest costs: it selects the blocks.
        num_blocks = min(max(24, number // 3), len(self.prior))
        promising = bound.topk(num_blocks, largest=False).indices
        cost = self.at(gts.unsqueeze(1), promising).flatten(1)
        limit = cost.kthvalue(min(number, cost.shape[1])).values
        row, block = (bound <= limit.unsqueeze(1)).nonzero(as_tuple=True)  # host synchronisation: the number of blocks
        cost = self.at(gts[row], block)
        cheap = (cost <= limit[row].unsqueeze(1)) & (cost < torch.inf)
        index, member = cheap.nonzero(as_tuple=True)  # host synchronisation: the number of locations
        return gts[row[index]], self.prior[block[index], member], cost[index, member], limit


def focal_cost(p: Tensor) -> Tensor:
    """Focal loss of probabilities as positives, minus their focal loss as negatives."""
    positive = -ALPHA * (1 - p).square() * (p + EPS).log()
    negative = -(1 - ALPHA) * p.square() * (1 - p + EPS).log()
    return positive - negative


def _blockwise(priors: Priors) -> Tensor:
    """The locations [R] in an order that keeps SIDE x SIDE cells of a level together."""
    column, row = (priors.points / priors.strides.unsqueeze(-1)).long().div(SIDE, rounding_mode="floor").unbind(-1)
    return ((priors.levels << 40) + (row << 20) + column).argsort(stable=True)


def _or_least(cost: Tensor) -> Tensor:
    return cost.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
