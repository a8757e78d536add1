"""The dense form of every scheme, which the benchmark compares with: the reference of the tests.

Assignment is done by the dense rules in la_det/references, image by image. Losses are fvcore's focal loss on one-hot
targets over all locations and fvcore's GIoU loss at the positives (for DW and AutoAssign the losses of their
references), with autograd.
"""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec

import torch
from fvcore.nn import giou_loss, sigmoid_focal_loss
from torch import Tensor

from la_det import matchers
from la_det.matchers import Matcher
from la_det.model_zoo.schemes import references
from la_det.modeling.criteria import Criterion
from la_det.references import autoassign, ddq, dw
from la_det.references.image import NO_LOSS, PROGRESS, Image, images
from la_det.steps.queries import DistinctQueries
from la_det.structures import DensePredictions, Targets

MAX_PAIR_LOGITS = 2e8  # upper bound of the logits expanded per image; beyond it, the foreground loss needs over 10 GB


def fits(criterion: Criterion, predictions: DensePredictions, targets: Targets) -> bool:
    """Whether the dense rule fits into the memory of an ordinary machine, and what it needs is installed."""
    if isinstance(criterion.matcher, matchers.PAA) and find_spec("sklearn") is None:
        return False
    pairs = len(predictions.priors) * max(targets.counts)
    return not isinstance(criterion.matcher, matchers.ForegroundLoss) or (
        pairs * predictions.num_classes <= MAX_PAIR_LOGITS
    )


@torch.no_grad()
def assign(criterion: Criterion, predictions: DensePredictions, targets: Targets) -> list:
    """The result of the dense rule per image: the ground truth of each prior [R]; weights for DW and AutoAssign."""
    matcher = matchers.matcher_at(criterion.matcher, PROGRESS)
    rule = references()[type(matcher)]
    return [_assign(rule, matcher, criterion.queries, x) for x in images(criterion.score, predictions, targets)]


def _assign(rule: Callable, matcher: Matcher, queries: DistinctQueries | None, x: Image) -> Tensor | tuple[Tensor, ...]:
    """The result of the rule for an image, with queries for these alone."""
    if queries is None:
        return rule(matcher, x)
    x = replace(x, queries=ddq.queries(x.p, x.boxes, x.priors.level_starts, queries.topk, queries.nms_threshold))
    assigned = rule(matcher, x)
    return torch.full_like(assigned, NO_LOSS).index_copy_(0, x.queries, assigned[x.queries])


def loss(criterion: Criterion, predictions: DensePredictions, targets: Targets) -> Tensor:
    """Classification and box loss on the dense assignment, averaged over the positives: a scalar."""
    total, count = torch.zeros(()), 0
    if isinstance(criterion.matcher, matchers.AutoAssign):
        for x in images(criterion.score, predictions, targets):
            total = total + sum(autoassign.losses(x.p, *autoassign.rule(criterion.matcher, x)))
        return total / max(len(targets), 1)
    decisions = assign(criterion, predictions, targets)
    for x, decision in zip(images(criterion.score, predictions, targets), decisions, strict=True):
        if isinstance(criterion.matcher, matchers.DW):
            total = total + sum(dw.losses(x.logits, x.gates["quality"], x.boxes, x.gts, x.classes, *decision))
            count += len(x.gts)
            continue
        part = (decision != NO_LOSS).nonzero().squeeze(1)
        positive = (decision >= 0).nonzero().squeeze(1)
        gt = decision[positive]
        one_hot = torch.zeros_like(x.logits)
        one_hot[positive, x.classes[gt]] = 1
        total = total + sigmoid_focal_loss(x.logits[part], one_hot[part], alpha=0.25, gamma=2.0, reduction="sum")
        total = total + giou_loss(x.boxes[positive], x.gts[gt], reduction="sum")
        count += len(positive)
    return total / max(count, 1)
