"""IoU, generalised and complete IoU of aligned box pairs, with analytic gradients in the first boxes.

torchvision's pairwise `box_iou` would need a P x P matrix, and its `generalized_box_iou_loss` places its epsilon
differently from the schemes here, which shows for boxes without area. Autograd would launch five times as many
operations, and all of them are too small to keep a GPU busy.
"""

import math

import torch
from torch import Tensor

from la_det.structures import constant

FLOAT32_EPS = torch.finfo(torch.float32).eps
_OUTWARD = (-1.0, -1.0, 1.0, 1.0)  # directions in which x1, y1, x2, y2 enlarge a box


def aligned_iou(a: Tensor, b: Tensor, eps: float = FLOAT32_EPS) -> Tensor:
    """IoU [...] of boxes [..., 4] and [..., 4], XYXY; 0 where they do not meet. The union is at least `eps`."""
    if a.requires_grad and torch.is_grad_enabled():
        return _IoU.apply(a, b, eps, False)
    intersection, union = _intersection_and_union(a, b)
    return intersection.div_(union.clamp_(min=eps))


def aligned_giou(a: Tensor, b: Tensor, eps: float = FLOAT32_EPS) -> Tensor:
    """Generalised IoU [...] (Rezatofighi et al., CVPR 2019); union and enclosing area are at least `eps`."""
    if a.requires_grad and torch.is_grad_enabled():
        return _IoU.apply(a, b, eps, True)
    intersection, union = _intersection_and_union(a, b)
    enclosing = _product(torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2]))
    return intersection / union.clamp(min=eps) - (enclosing - union) / enclosing.clamp(min=eps)


def aligned_ciou(a: Tensor, b: Tensor, eps: float = 1e-7) -> Tensor:
    """Complete IoU [P] of boxes [P, 4] each (Zheng et al., AAAI 2020), in the form that YOLOv8 made common.

    CIoU = IoU - D / C - alpha v, where D is the squared distance of the centres, C the squared diagonal of the
    enclosing box, v the difference of the aspect ratios and alpha = v / (v - IoU + 1 + eps) a constant. Heights, union
    and diagonal have `eps` added.
    """
    return _CIoU.apply(a, b, eps)


class _IoU(torch.autograd.Function):
    """Both of the above for boxes [P, 4] each.

    With coordinates times their outward directions, the intersection has the smaller ones of both boxes and the
    enclosing box the larger ones; a side is the sum of two of them, and its derivative in both is 1.
    """

    @staticmethod
    def forward(ctx, a, b, eps, generalised):
        outward = constant(_OUTWARD, a.device, a.dtype)
        a, b = a * outward, b * outward
        rows = [torch.minimum(a, b), a, b, torch.maximum(a, b)]
        raw = torch.stack(rows if generalised else rows[:3])
        raw = raw[..., :2] + raw[..., 2:]  # sides [3 or 4, P, 2]
        sides = raw.clamp(min=0)
        area = _product(sides)
        union = area[1] + area[2] - area[0]
        safe_union = union.clamp(min=eps)
        iou = area[0] / safe_union

        # d iou = d I / U - iou / U dU where U is not at its bound, and dU = dA - dI.
        by_union = iou / safe_union * (union >= eps)
        value, of_a, of_intersection = iou, -by_union, 1 / safe_union + by_union
        smaller = ((b - a).sign() + 1) / 2  # share of a in the smaller coordinate: half where both are equal
        weights, parts = [of_intersection, of_a], [smaller, torch.ones_like(smaller)]
        if generalised:
            # - d ((E - U) / E) = dU / E - dE / E + (E - U) / E^2 dE.
            enclosing = area[3]
            safe_enclosing = enclosing.clamp(min=eps)
            inverse, excess = 1 / safe_enclosing, (enclosing - union) / safe_enclosing
            value = iou - excess
            weights = [of_intersection - inverse, of_a + inverse, (excess * (enclosing >= eps) - 1) * inverse]
            parts.append(1 - smaller)
            sides, raw = sides[[0, 1, 3]], raw[[0, 1, 3]]
        else:
            sides, raw = sides[:2], raw[:2]
        # The other side where this one has not vanished. Like clamp, 0 itself has a gradient, as in the official
        # losses: a prediction without area can still grow.
        slope = (sides.flip(-1) * (raw >= 0)).repeat(1, 1, 2) * torch.stack(parts)
        ctx.save_for_backward((slope * torch.stack(weights).unsqueeze(-1)).sum(0).mul_(outward))
        return value

    @staticmethod
    def backward(ctx, grad):
        (slope,) = ctx.saved_tensors
        return grad.unsqueeze(-1) * slope, None, None, None


class _CIoU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b, eps):
        outward = constant(_OUTWARD, a.device, a.dtype)
        offset = (b - a).unflatten(-1, (2, 2)).sum(-2)  # twice the distance of the centres in x and y
        a, b = a * outward, b * outward
        raw = torch.stack([torch.minimum(a, b), a, b, torch.maximum(a, b)])
        raw = raw[..., :2] + raw[..., 2:]
        raw[1:3, :, 1] += eps
        sides = torch.cat([raw[:1].clamp(min=0), raw[1:]])
        area = _product(sides[:3])
        union = area[1] + area[2] - area[0] + eps
        iou = area[0] / union
        distance, diagonal = offset.square().sum(-1) / 4, sides[3].square().sum(-1) + eps
        angle = (sides[1:3, :, 0] / sides[1:3, :, 1]).atan()
        angle = angle[1] - angle[0]
        v = 4 / math.pi**2 * angle.square()
        alpha = v / (v - iou + 1 + eps)
        value = iou - distance / diagonal - alpha * v
        if not ctx.needs_input_grad[0]:
            return value

        smaller = ((b - a).sign() + 1) / 2
        by_union, by_diagonal = (iou / union).unsqueeze(-1), (distance / diagonal.square()).unsqueeze(-1)
        of_intersection = (1 / union).unsqueeze(-1) + by_union
        # d atan(w / h) = (h dw - w dh) / (w^2 + h^2).
        turn = 8 / math.pi**2 * alpha * angle / sides[1].square().sum(-1)
        turn = turn.unsqueeze(-1) * sides[1].flip(-1) * constant((1.0, -1.0), a.device, a.dtype)
        slope = (of_intersection * sides[0].flip(-1) * (raw[0] >= 0)).repeat(1, 2) * smaller
        slope = slope + (2 * by_diagonal * sides[3]).repeat(1, 2) * (1 - smaller)
        slope = slope + (turn - by_union * sides[1].flip(-1)).repeat(1, 2)
        ctx.save_for_backward(slope * outward + (offset / (2 * diagonal).unsqueeze(-1)).repeat(1, 2))
        return value

    @staticmethod
    def backward(ctx, grad):
        (slope,) = ctx.saved_tensors
        return grad.unsqueeze(-1) * slope, None, None


def _intersection_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    sides = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp_(min=0)
    intersection = _product(sides)
    return intersection, _area(a) + _area(b) - intersection


def _area(boxes: Tensor) -> Tensor:
    return _product((boxes[..., 2:] - boxes[..., :2]).clamp_(min=0))


def _product(sides: Tensor) -> Tensor:
    width, height = sides.unbind(-1)
    return width * height  # Tensor.prod waits for the GPU in its gradient, and is slower
