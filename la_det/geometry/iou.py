"""IoU, generalised and complete IoU of aligned box pairs, with analytic gradients with respect to the first boxes.

torchvision's pairwise `box_iou` would need a P x P matrix. Its `generalized_box_iou_loss` places its epsilon
differently from the schemes here, which matters for boxes without area. Autograd would launch five times as many
operations, each too small to keep a GPU busy.
"""

import math
from typing import Any

import torch
from torch import Tensor

from la_det.structures import chunks, constant

FLOAT32_EPS = torch.finfo(torch.float32).eps
_OUTWARD = (-1.0, -1.0, 1.0, 1.0)  # directions in which x1, y1, x2, y2 enlarge a box
_CPU_CHUNK = chunks.CPU_CHUNK // 4  # pairs of a part; each has four coordinates
_HALF_OUTWARD = (-0.5, -0.5, 0.5, 0.5)


def aligned_iou(a: Tensor, b: Tensor, eps: float = FLOAT32_EPS) -> Tensor:
    """IoU [...] of boxes a and b [..., 4], XYXY; 0 for boxes that do not meet. The union counts as at least `eps`."""
    if a.requires_grad and torch.is_grad_enabled():
        return _IoU.apply(a, b, eps, False)
    if a.shape == b.shape and len(a) > _CPU_CHUNK and chunks.in_chunks(a.device):
        parts = zip(a.split(_CPU_CHUNK), b.split(_CPU_CHUNK), strict=True)
        return torch.cat([aligned_iou(*part, eps) for part in parts])
    intersection, union, _ = _areas(a, b, enclosing=False)
    return intersection / union.clamp_(min=eps)


def aligned_giou(a: Tensor, b: Tensor, eps: float = FLOAT32_EPS) -> Tensor:
    """Generalised IoU [...] (Rezatofighi et al., CVPR 2019). Union and enclosing area count as at least `eps`."""
    if a.requires_grad and torch.is_grad_enabled():
        return _IoU.apply(a, b, eps, True)
    intersection, union, enclosing = _areas(a, b, enclosing=True)
    return intersection / union.clamp(min=eps) - (enclosing - union) / enclosing.clamp(min=eps)


def aligned_ciou(a: Tensor, b: Tensor, eps: float = 1e-7) -> Tensor:
    """Complete IoU [P] of boxes [P, 4] each (Zheng et al., AAAI 2020), in the form that YOLOv8 made common.

    CIoU = IoU - D / C - alpha v, where D is the squared distance of the centres, C the squared diagonal of the
    enclosing box, v the difference of the aspect ratios and alpha = v / (v - IoU + 1 + eps), which has no gradient.
    `eps` is added to heights, union and diagonal.
    """
    return _CIoU.apply(a, b, eps)


class _IoU(torch.autograd.Function):
    """IoU and generalised IoU of boxes [P, 4] each. The derivative of an area by one of its sides is the other side."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, eps: float, generalised: bool) -> Tensor:
        raw = _sides(a, b, enclosing=True)
        sides = raw.clamp(min=0)
        area = _product(sides)
        union = _union(area)
        denominators = torch.stack([union, area[2]])
        inverse = denominators.clamp(min=eps).reciprocal_()
        # (iou, (E - U) / E), and how much each falls when its denominator grows: 0 while the denominator is clamped.
        ratios = torch.stack([area[0], area[2] - union]) * inverse
        loss = ratios * inverse * (denominators >= eps)

        # d iou = dI / U - loss dU with dU = dA + dB - dI, and d (-(E - U) / E) = (dU - dE) / E + loss dE.
        if generalised:
            value = ratios[0] - ratios[1]
            of_a = inverse[1] - loss[0]
            of_areas = torch.stack([inverse[0] - of_a, of_a, loss[1] - inverse[1]])
        else:
            value = ratios[0]
            of_areas = torch.stack([inverse[0] + loss[0], -loss[0], torch.zeros_like(value)])
        # A negative side, clamped to 0, has no derivative. A side of exactly 0 has one, as with clamp in the official
        # losses: a prediction without area can still grow.
        change = sides[:3].flip(-1) * (raw[:3] >= 0) * of_areas.unsqueeze(-1)
        of_smaller, of_a, of_larger = change.unsqueeze(-2).unbind()  # [P, 1, 2] each
        # If the boxes share a coordinate, each gets half of the derivative.
        sign = ((b - a) * constant(_OUTWARD, a.device, a.dtype)).sign_().unflatten(-1, (2, 2))
        slope = torch.addcmul(of_smaller + of_larger, sign, of_smaller - of_larger).add_(of_a, alpha=2)
        ctx.save_for_backward(slope.flatten(-2) * constant(_HALF_OUTWARD, a.device, a.dtype))
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return grad.unsqueeze(-1) * slope, None, None, None


class _CIoU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, eps: float) -> Tensor:
        outward = constant(_OUTWARD, a.device, a.dtype)
        offset = (b - a).unflatten(-1, (2, 2)).mean(-2)  # of the centres
        a, b = a * outward, b * outward
        coordinates = torch.stack([torch.minimum(a, b), a, b, torch.maximum(a, b)])
        sides = coordinates[..., :2] + coordinates[..., 2:]  # of the intersection, a, b and the enclosing box
        sides[1:3, :, 1].add_(eps)
        meet = sides[0] >= 0 if ctx.needs_input_grad[0] else None
        sides[0].clamp_(min=0)
        area = _product(sides[:3])
        inverse = (_union(area) + eps).reciprocal_()
        iou = area[0] * inverse
        diagonal = sides[3].square().sum(-1).add_(eps)
        distance = offset.square().sum(-1).div_(diagonal)
        angle = (sides[1:3, :, 0] / sides[1:3, :, 1]).atan_()
        angle = angle[1] - angle[0]
        v = angle.square() * (4 / math.pi**2)
        alpha = v / (v - iou + (1 + eps))
        value = torch.addcmul(iou - distance, alpha, v, value=-1)
        if meet is None:
            return value

        by_union, by_diagonal = iou * inverse, (distance / diagonal).mul_(2)
        other = sides[:2].flip(-1)  # by which an area changes with a side
        of_smaller = other[0] * meet * (inverse + by_union).unsqueeze(-1)
        of_larger = by_diagonal.unsqueeze(-1) * sides[3]
        # d atan(w / h) = (h dw - w dh) / (w^2 + h^2).
        turn = (8 / math.pi**2) * alpha * angle / sides[1].square().sum(-1)
        turn = turn.unsqueeze(-1) * constant((1.0, -1.0), a.device, a.dtype)
        of_a = other[1] * turn.sub_(by_union.unsqueeze(-1))
        # As in `_IoU`; the centres' distance changes equally with both coordinates of a direction.
        of_smaller, of_larger, of_a = (x.unsqueeze(-2) for x in (of_smaller, of_larger, of_a))
        sign = (b - a).sign_().unflatten(-1, (2, 2))
        slope = torch.addcmul(of_smaller + of_larger, sign, of_smaller - of_larger).add_(of_a, alpha=2)
        slope = slope * constant(_HALF_OUTWARD, a.device, a.dtype).view(2, 2)
        ctx.save_for_backward(slope.add_((offset / diagonal.unsqueeze(-1)).unsqueeze(-2)).flatten(-2))
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return grad.unsqueeze(-1) * slope, None, None


def _areas(a: Tensor, b: Tensor, enclosing: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Areas [...] of the intersection, the union and, if wanted, the enclosing box."""
    if a.shape == b.shape:
        area = _product(_sides(a, b, enclosing).clamp_(min=0))
        return area[0], _union(area), area[2] if enclosing else None
    # Four more operations, but no copy of the boxes that broadcast.
    intersection = _product(
        (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp_(min=0)
    )
    of_a, of_b = (_product((x[..., 2:] - x[..., :2]).clamp_(min=0)) for x in (a, b))
    outer = None
    if enclosing:
        outer = _product(torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2]))
    return intersection, of_a + of_b - intersection, outer


def _sides(a: Tensor, b: Tensor, enclosing: bool) -> Tensor:
    """Widths and heights [3 or 4, ..., 2] of the intersection, a, the enclosing box if wanted, and b; may be negative.

    Coordinates are multiplied by their outward directions. Then the intersection has the smaller coordinates of the two
    boxes, the enclosing box the larger ones, and a side is the sum of two coordinates.
    """
    outward = constant(_OUTWARD, a.device, a.dtype)
    a, b = a * outward, b * outward
    larger = [torch.maximum(a, b)] if enclosing else []
    coordinates = torch.stack([torch.minimum(a, b), a, *larger, b])
    return coordinates[..., :2] + coordinates[..., 2:]


def _union(area: Tensor) -> Tensor:
    """Area of the union, from the areas of the boxes of `_sides`."""
    return area[1] + area[-1] - area[0]


def _product(sides: Tensor) -> Tensor:
    width, height = sides.unbind(-1)
    return width * height  # Tensor.prod waits for the GPU in its gradient, and is slower
