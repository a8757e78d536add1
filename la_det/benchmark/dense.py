"""The straightforward form of every scheme, to measure ours beside: what the tests use as reference.

Assignment by the dense versions in la_det/references, image by image; losses by fvcore's focal loss on one-hot
targets over all locations and its GIoU loss at the positives (DW: the losses of its reference), with autograd.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from fvcore.nn import giou_loss, sigmoid_focal_loss
from torch import Tensor

from la_det import matchers
from la_det.model_zoo.schemes import references
from la_det.modeling.criteria import Criterion
from la_det.references import ddq, dw
from la_det.references.image import Image, images
from la_det.structures import DensePredictions, Targets

NO_QUERY = -2  # of a prior that takes part in no loss
MAX_PAIR_LOGITS = 2e8  # what a dense rule may expand per image: beyond this the foreground loss needs over 10 GB


def fits(criterion: Criterion, predictions: DensePredictions, targets: Targets) -> bool:
    """Whether the dense rule fits into the memory of an ordinary machine."""
    pairs = len(predictions.priors) * max(targets.counts)
    return not isinstance(criterion.matcher, matchers.ForegroundLoss) or (
        pairs * predictions.num_classes <= MAX_PAIR_LOGITS
    )


@torch.no_grad()
def assign(criterion: Criterion, predictions: DensePredictions, targets: Targets) -> list:
    """Per image what the dense rule gives: the ground truth of each prior [R], or DW's weights."""
    rule = references()[type(criterion.matcher)]
    return [_assign(rule, criterion, x) for x in images(criterion.score, predictions, targets)]


def _assign(rule: Callable, criterion: Criterion, x: Image) -> Tensor | tuple[Tensor, ...]:
    """What the rule gives for an image, of a criterion with queries for these alone."""
    if criterion.queries is None:
        return rule(criterion.matcher, x)
    options = criterion.queries
    x = replace(x, queries=ddq.queries(x.p, x.boxes, x.priors.level_starts, options.topk, options.nms_threshold))
    assigned = rule(criterion.matcher, x)
    return torch.full_like(assigned, NO_QUERY).index_copy_(0, x.queries, assigned[x.queries])


def loss(criterion: Criterion, predictions: DensePredictions, targets: Targets) -> Tensor:
    """Scalar: classification and box loss on the dense assignment, averaged over the positives."""
    decisions = assign(criterion, predictions, targets)
    total, count = torch.zeros(()), 0
    for x, decision in zip(images(criterion.score, predictions, targets), decisions, strict=True):
        if isinstance(criterion.matcher, matchers.DW):
            total = total + sum(dw.losses(x.logits, x.gates["quality"], x.boxes, x.gts, x.classes, *decision))
            count += len(x.gts)
            continue
        part = (decision != NO_QUERY).nonzero().squeeze(1)
        positive = (decision >= 0).nonzero().squeeze(1)
        gt = decision[positive]
        one_hot = torch.zeros_like(x.logits)
        one_hot[positive, x.classes[gt]] = 1
        total = total + sigmoid_focal_loss(x.logits[part], one_hot[part], alpha=0.25, gamma=2.0, reduction="sum")
        total = total + giou_loss(x.boxes[positive], x.gts[gt], reduction="sum")
        count += len(positive)
    return total / max(count, 1)
