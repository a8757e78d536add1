"""DETR's matching cost (ECCV 2020, section 3.1) on dense predictions: every prior is a candidate of every ground truth.

Neighbouring priors form blocks, which have a lower bound of their costs. To find the cheapest priors of a ground truth,
only blocks that can hold one of them are looked into.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from la_det.geometry import aligned_giou, image_scales, relative_boxes
from la_det.structures import DensePredictions, Priors, Queries, Score, Targets, chunks, constant

ALPHA = 0.25  # weight of positives in the focal cost; gamma is 2
GIOU_EPS = 1e-6  # square pixels

SIDE = 4  # side of a block, cells
# Pairs (block, ground truth) that are compared at a time: few stay in the cache of a CPU, a GPU wants many.
_CPU_CHUNK, _GPU_CHUNK = 3 << 15, 1 << 20


@dataclass(frozen=True)
class DETRCost:
    """K = class_weight (focal cost) + l1_weight |b - b_gt|_1 - giou_weight GIoU(B, B_gt).

    The focal cost is the focal loss of the ground truth's class as a positive minus that as a negative; b is the box B
    relative to the size of the image before padding.

    Attributes:
        class_weight, l1_weight, giou_weight: see above.
        corners: b = (x1, y1, x2, y2), as OneNet has it, instead of DETR's (cx, cy, w, h).
        eps: added to the probabilities in the focal cost's logarithms.
    """

    class_weight: float = 2.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    corners: bool = False
    eps: float = 1e-12

    def __call__(self, predictions: DensePredictions, targets: Targets, score: Score) -> "Costs":
        """The costs of all (prior, ground truth)."""
        return Costs(self, predictions, targets, score)

    def of_queries(self, p: Tensor, kind: Tensor, queries: Queries, targets: Targets) -> Tensor:
        """The costs [G, Q] of the queries of each ground truth's image; infinite where the entry is no query.

        Args:
            p, kind: see `query_probabilities`.
            queries, targets: of the batch.
        """
        cls_cost, scales, costs = self.of_class(p), image_scales(targets), []
        # Coordinates as planes, along which operations are fastest.
        boxes = queries.boxes.movedim(-1, 0).contiguous()
        b = relative_boxes(boxes.movedim(0, -1), scales.unsqueeze(1), self.corners).movedim(-1, 0)
        b = torch.where(queries.valid, b, torch.inf)
        b_gt = relative_boxes(targets.boxes, scales.index_select(0, targets.image), self.corners)
        size = (_CPU_CHUNK if chunks.in_chunks(p.device) else _GPU_CHUNK) // max(p.shape[1], 1)
        parts = (x.split(max(size, 1)) for x in (targets.image, targets.boxes.unsqueeze(1), b_gt.unsqueeze(1), kind))
        for image, its_box, its_b, its_kind in zip(*parts, strict=True):
            giou = aligned_giou(boxes.index_select(1, image).movedim(0, -1), its_box, GIOU_EPS)
            l1 = b.index_select(1, image).movedim(0, -1).sub_(its_b).abs_().sum(-1)
            cost = cls_cost.index_select(0, its_kind).add_(l1, alpha=self.l1_weight)
            costs.append(cost.sub_(giou, alpha=self.giou_weight))
        return torch.cat(costs)

    def of_class(self, p: Tensor) -> Tensor:
        """The part of the class, weighted, from its probabilities."""
        complement = 1 - p
        negative = (complement + self.eps).log_().mul_(p.square()).mul_(self.class_weight * (1 - ALPHA))
        positive = complement.square_(), (p + self.eps).log_()
        return negative.addcmul_(*positive, value=-self.class_weight * ALPHA)


class Costs:
    """Costs K of R priors, in T blocks of SIDE x SIDE neighbours, for G ground truths; computed where asked for.

    `prior` [T, SIDE^2] has the priors of each block; repetitions of the last prior fill the last block.
    """

    def __init__(self, cost: DETRCost, predictions: DensePredictions, targets: Targets, score: Score):
        self.cost, self.targets = cost, targets
        order = _blockwise(predictions.priors)
        number = len(order)
        self.prior = torch.cat([order, order[-1:].expand(-number % SIDE**2)]).view(-1, SIDE**2)
        repeated = torch.arange(self.prior.numel(), device=order.device) >= number
        self.surplus = (
            torch.zeros_like(repeated, dtype=torch.float32).masked_fill_(repeated, torch.inf).view_as(self.prior)
        )

        image, cls, self.kind = targets.kinds(predictions.num_classes)
        levels = range(len(predictions.priors.grid_sizes))
        p = [score.of_classes(predictions, level, image, cls).permute(0, 2, 3, 1).flatten(1) for level in levels]
        self.p = torch.cat(p, 1).index_select(1, self.prior.flatten()).unflatten(1, self.prior.shape)  # [U, T, SIDE^2]
        boxes = predictions.boxes()
        scales = image_scales(targets)
        self.boxes = boxes.permute(2, 0, 1)[..., self.prior]  # [4, N, T, SIDE^2]
        b = relative_boxes(boxes, scales.unsqueeze(1), cost.corners).permute(2, 0, 1)[..., self.prior]
        its_scales = scales[targets.image]
        b_gt = relative_boxes(targets.boxes, its_scales, cost.corners)
        self.gts = torch.stack([targets.boxes, b_gt, its_scales], 1)  # [G, 3, 4]

        # What bounds the costs in a block: [U, T], then [4, N, T] each, [2, N, T].
        self.least_cls_cost = cost.of_class(self.p.amax(-1))  # it falls with the probability
        lowest, highest = b.amin(-1), b.amax(-1)
        self.middle, self.half_range = (highest + lowest) / 2, (highest - lowest) / 2
        self.hulls = torch.cat([self.boxes[:2].amin(-1), self.boxes[2:].amax(-1)])
        areas = (self.boxes[2] - self.boxes[0]) * (self.boxes[3] - self.boxes[1])
        self.areas = torch.stack([areas.amin(-1), areas.amax(-1)])

    def at(self, gt: Tensor, block: Tensor) -> Tensor:
        """K of all priors of blocks [...] for ground truths [...]: [..., SIDE^2]; infinite for a repetition.

        NaN becomes minus infinity, which the matching reports as an error.
        """
        image = self.targets.image[gt]
        gt_boxes, b_gt, scales = self.gts[gt].unsqueeze(-3).unbind(-2)
        boxes = self.boxes[:, image, block].movedim(0, -1)
        l1 = relative_boxes(boxes, scales, self.cost.corners).sub_(b_gt).abs_().sum(-1)
        giou = aligned_giou(boxes, gt_boxes, GIOU_EPS)
        cls_cost = self.cost.of_class(self.p[self.kind[gt], block])
        return self.surplus[block] + _or_least(cls_cost + self.cost.l1_weight * l1 - self.cost.giou_weight * giou)

    def dense(self) -> Tensor:
        """K of all priors for all ground truths, [G, R]: to look at, not to match."""
        gts = torch.arange(len(self.gts), device=self.prior.device).unsqueeze(1)
        cost = self.at(gts, torch.arange(len(self.prior), device=gts.device)).flatten(1)
        num_priors = int(self.prior.max()) + 1
        return torch.empty_like(cost[:, :num_priors]).index_copy_(
            1, self.prior.flatten()[:num_priors], cost[:, :num_priors]
        )

    def bound(self, gts: Tensor) -> Tensor:
        """Lower bound of K in each block for ground truths `gts` [g]: [g, T].

        The class cost is at least the block's least, and the distance of a coordinate at least that to the nearest one
        in the block. The intersection is at most that with the hull of the boxes, the union at least the larger box.
        """
        image = self.targets.image[gts]
        gt_boxes, b_gt, _ = self.gts[gts].permute(1, 2, 0).unsqueeze(-1)  # [4, g, 1] each
        l1 = ((b_gt - self.middle[:, image]).abs() - self.half_range[:, image]).clamp(min=0).sum(0)
        x1, y1, x2, y2 = gt_boxes
        left, top, right, bottom = self.hulls[:, image]
        width, height = right.minimum(x2) - left.maximum(x1), bottom.minimum(y2) - top.maximum(y1)
        smallest, largest = self.areas[:, image]
        intersection = (width.clamp(min=0) * height.clamp(min=0)).minimum(largest)
        union = smallest.maximum((x2 - x1) * (y2 - y1)).clamp(min=GIOU_EPS)
        cls_cost = self.least_cls_cost[self.kind[gts]]
        bound = cls_cost + self.cost.l1_weight * l1 - self.cost.giou_weight * intersection / union
        return _or_least(bound - 1e-4)  # rounding must not lose a block

    def cheapest(self, gts: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """At least the `number` cheapest priors of each ground truth in `gts` [g].

        Returns:
            Ground truth, prior and cost [P] of pairs in any order, and [g] a lower bound of the costs of all others.
        """
        size = (_CPU_CHUNK if chunks.in_chunks(gts.device) else _GPU_CHUNK) // len(self.prior)
        parts = [self._cheapest(chunk, number) for chunk in gts.split(max(size, 1))]
        gt, prior, cost, rest = (torch.cat(x) for x in zip(*parts, strict=True))
        return gt, prior, cost, rest

    def _cheapest(self, gts: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        bound = self.bound(gts)
        # The costs in the most promising blocks are an upper bound of the cheapest costs: it selects the other blocks.
        num_blocks = min(max(24, number // 3), len(self.prior))
        promising = bound.topk(num_blocks, largest=False).indices
        cost = self.at(gts.unsqueeze(1), promising)
        rest = cost.flatten(1).kthvalue(min(number, num_blocks * SIDE**2)).values
        limit = rest.clamp(max=torch.finfo(rest.dtype).max)  # an infinite cost is that of no prior
        others = bound.scatter_(1, promising, torch.inf) <= limit.unsqueeze(1)
        row, block = others.nonzero(as_tuple=True)  # host synchronisation: the number of blocks
        cost = torch.cat([cost.flatten(0, 1), self.at(gts[row], block)])
        every = torch.arange(len(gts), device=gts.device).unsqueeze(1).expand_as(promising)
        row, block = torch.cat([every.flatten(), row]), torch.cat([promising.flatten(), block])
        # Host synchronisation: the number of priors.
        index, member = (cost <= limit[row].unsqueeze(1)).nonzero(as_tuple=True)
        return gts[row[index]], self.prior[block[index], member], cost[index, member], rest


def query_probabilities(predictions: DensePredictions, targets: Targets, score: Score) -> tuple[Tensor, Tensor]:
    """Probabilities [U, Q] of the queries for the (image, class) of ground truths, and [G] which of them each is of."""
    image, cls, kind = targets.kinds(predictions.num_classes)
    queries = predictions.queries
    # Positions of the first two classes of each query, and with their difference those of every class.
    two = constant((0, 1), cls.device, cls.dtype).view(2, 1, 1)
    first, second = predictions.index("logits", queries.image, queries.prior, two).index_select(1, image)
    where = first.addcmul_(second.sub_(first), cls.unsqueeze(1))
    c = predictions.flat("logits").index_select(0, where.flatten()).view_as(where)
    if score.gate is None:
        return c.sigmoid(), kind
    f = predictions.flat(score.gate)[predictions.index(score.gate, queries.image, queries.prior)]
    return score.gated(c.sigmoid(), f.sigmoid().index_select(0, image)), kind


def _blockwise(priors: Priors) -> Tensor:
    """The priors [R] in an order that keeps SIDE x SIDE cells of a level together, per prior of a cell."""
    of_cell = torch.arange(len(priors), device=priors.points.device) % priors.per_cell
    column, row = (priors.points / priors.strides.unsqueeze(-1)).long().div(SIDE, rounding_mode="floor").unbind(-1)
    return ((priors.levels << 48) + (of_cell << 40) + (row << 20) + column).argsort(stable=True)


def _or_least(cost: Tensor) -> Tensor:
    return cost.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
