"""DDQ's matching of distinct queries (Zhang et al., CVPR 2023, arXiv 2303.12776), as its official code has it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from la_det.geometry import aligned_iou
from la_det.steps.score import DETRCost, alignment, normalised_alignment, query_probabilities
from la_det.steps.select import match_copies
from la_det.structures import Assignment, DensePredictions, Pairs, Score, Targets, on_device

LEAST_P = 1e-5  # of a probability and of its complement in the class cost
IOU_EPS = 1e-6  # square pixels
TARGET_EPS = 1e-7
ALPHA, BETA = 1.0, 6.0  # exponents of p and IoU in the soft target


@dataclass(frozen=True)
class DDQCost(DETRCost):
    """DETR's cost of the corners, with probabilities that are at least 1e-5 away from 0 and 1.

    The official code turns probabilities into logits and back, which rounds those at these bounds in the sixth digit.
    """

    corners: bool = True

    def of_class(self, p: Tensor) -> Tensor:
        return super().of_class(p.clamp(LEAST_P, 1 - LEAST_P))


class DDQ:
    """Each ground truth gets k queries of its own, so that the sum of their costs in the image is least.

    k is `topk`, or the queries of the image divided by its ground truths, rounded down, if that is less: with more
    ground truths than queries nobody gets one. A query may lie anywhere. The soft target of a pair is m = p IoU^6,
    scaled so that the ground truth's largest m is its largest IoU; a pair without overlap is trained as background.

    Its criterion must have `queries`.

    Args:
        topk: queries of a ground truth.
        cost: of a query for a ground truth.
        train_empty: images without ground truths are background. By default, as in the official code, they take part
            in no loss.
    """

    def __init__(self, *, topk: int = 1, cost: DETRCost | None = None, train_empty: bool = False):
        self.topk = topk
        self.cost = cost or DDQCost()
        self.train_empty = train_empty

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        queries = predictions.queries
        if queries is None:
            raise ValueError("DDQ matches queries: give its criterion `queries`, such as DistinctQueries()")
        p, kind = query_probabilities(predictions, targets, score)  # [U, Q], [G]
        gt, query = match_copies(self.cost.of_queries(p, kind, queries, targets), targets, self.topk)
        image = targets.image.index_select(0, gt)
        iou = aligned_iou(queries.boxes[image, query], targets.boxes.index_select(0, gt), IOU_EPS)
        m = alignment(p[kind.index_select(0, gt), query], iou, ALPHA, BETA)
        target = normalised_alignment(m, iou, gt, len(targets), TARGET_EPS)
        if not self.train_empty:
            queries = queries.of_images(on_device([count > 0 for count in targets.counts], gt.device))
        return Assignment(Pairs(image, queries.prior[image, query], gt), target=target, queries=queries)
