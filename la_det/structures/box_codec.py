"""How a branch's box channels become boxes."""

import math
from typing import Protocol

import torch
from torch import Tensor

from la_det.structures.no_wait import constant
from la_det.structures.priors import Priors

_OUTWARD = (-1.0, -1.0, 1.0, 1.0)  # direction of (left, top, right, bottom)
_MAX_LOG_SCALE = math.log(1000 / 16)  # upper bound of decoded dw and dh: a box is at most 62.5 times its anchor


class BoxCodec(Protocol):
    """Decodes box channels at chosen priors.

    `prior` holds indices of priors, in the leading shape of the boxes. None stands for all R priors in their order.
    """

    def decode(self, raw: Tensor, priors: Priors, prior: Tensor | None) -> Tensor:
        """Turns box channels [..., 4] into boxes [..., 4]: XYXY pixels, not clipped."""
        ...

    def encode(self, boxes: Tensor, priors: Priors, prior: Tensor | None) -> Tensor:
        """Turns boxes [..., 4] into the channels that decode to these boxes."""
        ...


class LTRBCodec:
    """Distances (left, top, right, bottom) from the prior's point to the sides of the box (FCOS, eq. 1).

    In the pixel-inclusive convention the distances are differences of pixel indices: each ends half a pixel before the
    side.

    Args:
        in_strides: distances are in units of the level's stride instead of pixels.
    """

    def __init__(self, *, in_strides: bool = False):
        self.in_strides = in_strides

    def decode(self, raw: Tensor, priors: Priors, prior: Tensor | None) -> Tensor:
        if self.in_strides:
            raw = raw * _at(priors.strides, prior).unsqueeze(-1)
        if priors.shift:
            raw = raw + priors.shift
        return torch.addcmul(_at(priors.points_twice, prior), raw, constant(_OUTWARD, raw.device, raw.dtype))

    def encode(self, boxes: Tensor, priors: Priors, prior: Tensor | None) -> Tensor:
        ltrb = (boxes - _at(priors.points_twice, prior)) * constant(_OUTWARD, boxes.device, boxes.dtype) - priors.shift
        return ltrb / _at(priors.strides, prior).unsqueeze(-1) if self.in_strides else ltrb


class CornerCodec:
    """Corners (x1, y1, x2, y2) of the box in units of the level's stride."""

    def decode(self, raw: Tensor, priors: Priors, prior: Tensor | None) -> Tensor:
        return raw * _at(priors.strides, prior).unsqueeze(-1)

    def encode(self, boxes: Tensor, priors: Priors, prior: Tensor | None) -> Tensor:
        return boxes / _at(priors.strides, prior).unsqueeze(-1)


class DeltaCodec:
    """R-CNN box deltas relative to the prior's anchor (R-CNN, appendix C).

    Args:
        weights: factors of (dx, dy, dw, dh).
        clamp_both: dw and dh are clamped from below, too, as in MMDetection.
    """

    def __init__(self, *, weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0), clamp_both: bool = False):
        self.weights = tuple(weights)
        self.lowest = -_MAX_LOG_SCALE if clamp_both else None

    def decode(self, raw: Tensor, priors: Priors, prior: Tensor | None) -> Tensor:
        centers, sizes = _at(_anchors(priors), prior).split(2, -1)
        shifts, scales = (raw / constant(self.weights, raw.device, raw.dtype)).split(2, -1)
        new_centers = torch.addcmul(centers, shifts, sizes)
        new_sizes = scales.clamp(self.lowest, _MAX_LOG_SCALE).exp() * sizes
        return torch.cat([new_centers.sub(new_sizes, alpha=0.5), new_centers.add(new_sizes, alpha=0.5)], -1)

    def encode(self, boxes: Tensor, priors: Priors, prior: Tensor | None) -> Tensor:
        centers, sizes = _at(_anchors(priors), prior).split(2, -1)
        box_centers, box_sizes = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
        deltas = torch.cat([(box_centers - centers) / sizes, (box_sizes / sizes).log()], -1)
        return deltas * constant(self.weights, deltas.device, deltas.dtype)


def _at(table: Tensor, prior: Tensor | None) -> Tensor:
    """Rows of a table [R, ...] at priors of any shape."""
    return table if prior is None else table[prior]


def _anchors(priors: Priors) -> Tensor:
    """[R, 4] centres and sizes of the anchors."""
    if priors.boxes is None:
        raise ValueError("DeltaCodec needs priors with anchor boxes; use an anchor generator for this branch")
    return priors.centers_and_sizes
