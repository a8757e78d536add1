"""DDQ's queries, matching and soft targets, one image at a time, as the official code has them."""

from dataclasses import asdict
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import nms

from la_det.matchers import DDQ
from la_det.references.hungarian import cost_matrix
from la_det.references.image import NO_LOSS, Image
from la_det.references.poto import iou_matrix


def queries(p: Tensor, boxes: Tensor, level_starts: list[int], topk: int, threshold: float | None) -> Tensor:
    """Query priors [D], from probabilities [R, K] and boxes [R, 4]."""
    s = p.amax(1)
    parts = []
    for start, end in zip(level_starts[:-1], level_starts[1:], strict=True):
        index = s[start:end].topk(min(topk, end - start)).indices + start
        parts.append(index[s[index] > 0])
    candidates = torch.cat(parts)
    return candidates if threshold is None else candidates[nms(boxes[candidates], s[candidates], threshold)]


def costs(p: Tensor, boxes: Tensor, gts: Tensor, classes: Tensor, size: tuple[int, int], **options: Any) -> Tensor:
    """[Q, G] of queries with probabilities [Q, K] and boxes [Q, 4]; `options` of `cost_matrix`."""
    positive, negative = p.clamp(min=1e-5), (1 - p).clamp(min=1e-5)
    return cost_matrix(positive / (positive + negative), boxes, gts, classes, size, **{"corners": True} | options)


def match(cost: Tensor, topk: int) -> Tensor:
    """Ground truth of each query [Q], -1 for none, from costs [Q, G]."""
    num_queries, num_gts = cost.shape
    k = min(topk, num_queries // max(num_gts, 1))
    matched = torch.full((num_queries,), -1)
    rows, columns = linear_sum_assignment(cost.double().repeat_interleave(k, 1).numpy())
    matched[torch.from_numpy(rows)] = torch.from_numpy(columns) // max(k, 1)
    return matched


def soft_targets(matched: Tensor, p: Tensor, boxes: Tensor, gts: Tensor, classes: Tensor) -> Tensor:
    """[Q] of matched queries, 0 elsewhere."""
    target, iou = torch.zeros(len(matched)), iou_matrix(gts, boxes)
    for gt, cls in enumerate(classes.tolist()):
        mine = matched == gt
        if mine.any():
            m = p[mine, cls] * iou[gt, mine] ** 6
            target[mine] = m / (m.max() + 1e-7) * iou[gt, mine].max()
    return target


def rule(matcher: DDQ, x: Image) -> Tensor:
    if len(x.gts) == 0 and not matcher.train_empty:
        return torch.full((len(x.p),), NO_LOSS)
    index = x.queries
    cost = costs(x.p[index], x.boxes[index], x.gts, x.classes, x.size, **asdict(matcher.cost))
    assigned = torch.full((len(x.p),), -1)
    assigned[index] = match(cost, matcher.topk)
    return assigned
