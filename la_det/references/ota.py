"""OTA on dense [G + 1, R] tensors, image by image, as the official code does it."""

from dataclasses import asdict

import torch
from torch import Tensor

from la_det.matchers import OTA
from la_det.references.image import Image
from la_det.references.poto import distances, iou_matrix

EPS = 1.1920929e-07


def candidates(points: Tensor, strides: Tensor, gts: Tensor, radius: float = 2.5) -> Tensor:
    """[G, R]: more than 0.01 pixels inside the box, and inside the square around its centre."""
    middle = ((gts[:, :2] + gts[:, 2:]) / 2)[:, None]
    half = (radius * strides)[None, :, None]
    in_square = ((points > middle - half) & (points < middle + half)).all(-1)
    return in_square & (distances(points, gts).amin(-1) > 0.01)


def focal(logits: Tensor, target: Tensor, alpha: float) -> Tensor:
    """[R] summed over the classes."""
    p = logits.sigmoid()
    p_t = target * p + (1 - target) * (1 - p)
    weight = target * alpha + (1 - target) * (1 - alpha)
    bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (weight * (1 - p_t) ** 2 * bce).sum(1)


def costs(logits: Tensor, iou: Tensor, candidate: Tensor, classes: Tensor, reg_weight: float, alpha: float) -> Tensor:
    """[G + 1, R]; the last row is the background's."""
    rows = []
    for k in classes.tolist():
        target = torch.zeros_like(logits)
        target[:, k] = 1
        rows.append(focal(logits, target, alpha))
    background = focal(logits, torch.zeros_like(logits), alpha)
    positive = torch.stack(rows) if rows else logits.new_zeros(0, len(logits))
    positive = positive - reg_weight * iou.clamp(min=EPS).log() + 1e6 * ~candidate
    return torch.cat([positive, background[None]])


def dynamic_k(iou: Tensor, candidate: Tensor, topk: int) -> Tensor:
    """[G]."""
    return (iou * candidate).topk(min(topk, iou.shape[1]), 1).values.sum(1).int().clamp(min=1)


def sinkhorn(cost: Tensor, supply: Tensor, eps: float, iterations: int) -> Tensor:
    """The plan [G + 1, R], each row divided by its maximum."""
    u, v = torch.ones_like(cost[:, 0]), torch.ones_like(cost[0])
    demand = torch.ones_like(v)

    def kernel() -> Tensor:
        return (u[:, None] + v[None] - cost) / eps

    for _ in range(iterations):
        v = eps * ((demand + 1e-8).log() - kernel().logsumexp(0)) + v
        u = eps * ((supply + 1e-8).log() - kernel().logsumexp(1)) + u
    plan = kernel().exp()
    return plan / plan.amax(1, keepdim=True)


def assign(
    logits: Tensor,
    boxes: Tensor,
    points: Tensor,
    strides: Tensor,
    gts: Tensor,
    classes: Tensor,
    *,
    center_radius: float = 2.5,
    topk: int = 20,
    reg_weight: float = 1.5,
    alpha: float = 0.25,
    eps: float = 0.1,
    iterations: int = 50,
) -> tuple[Tensor, Tensor, Tensor]:
    """Matched ground truth of each location [R], -1 for background; the plan [G + 1, R]; and k [G]."""
    iou = iou_matrix(gts, boxes)
    candidate = candidates(points, strides, gts, center_radius)
    k = dynamic_k(iou, candidate, topk)
    supply = torch.cat([k, (len(points) - k.sum()).clamp(min=0)[None]]).to(logits)
    plan = sinkhorn(costs(logits, iou, candidate, classes, reg_weight, alpha), supply, eps, iterations)
    best = (plan == plan.amax(0)).int().argmax(0)  # the first of equal rows
    return torch.where(best < len(gts), best, -1), plan, k


def rule(matcher: OTA, x: Image) -> Tensor:
    return assign(x.logits, x.boxes, *x.place, x.gts, x.classes, **asdict(matcher))[0]
