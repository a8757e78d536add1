"""How a branch's box channels become boxes."""

import math
from typing import Protocol

import torch
from torch import Tensor

from la_det.structures.no_wait import on_device
from la_det.structures.priors import Priors


class BoxCodec(Protocol):
    """Decodes box channels at chosen priors. `prior` indexes the R priors and has the leading shape of `raw`."""

    def decode(self, raw: Tensor, priors: Priors, prior: Tensor) -> Tensor:
        """Box channels [..., 4] to boxes [..., 4], XYXY pixels, not clipped."""
        ...

    def encode(self, boxes: Tensor, priors: Priors, prior: Tensor) -> Tensor:
        """Boxes [..., 4] to the channels that would decode to them."""
        ...


class LTRBCodec:
    """Distances (left, top, right, bottom) from the prior's point to the sides of the box (FCOS, eq. 1).

    In the pixel-inclusive convention they are differences of pixel indices, half a pixel short of the sides.

    Args:
        in_strides: distances are in units of the level's stride instead of pixels.
    """

    def __init__(self, *, in_strides: bool = False):
        self.in_strides = in_strides

    def decode(self, raw: Tensor, priors: Priors, prior: Tensor) -> Tensor:
        if self.in_strides:
            raw = raw * priors.strides[prior].unsqueeze(-1)
        points, ltrb = priors.points[prior], raw + priors.shift
        return torch.cat([points - ltrb[..., :2], points + ltrb[..., 2:]], -1)

    def encode(self, boxes: Tensor, priors: Priors, prior: Tensor) -> Tensor:
        points = priors.points[prior]
        ltrb = torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], -1) - priors.shift
        return ltrb / priors.strides[prior].unsqueeze(-1) if self.in_strides else ltrb


class DeltaCodec:
    """R-CNN box deltas relative to the prior's anchor (R-CNN, appendix C).

    Args:
        weights: factors of (dx, dy, dw, dh).
        max_log_scale: upper clamp of dw and dh when decoding; the default lets a box grow to 62.5 times its anchor.
    """

    def __init__(
        self,
        *,
        weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
        max_log_scale: float = math.log(1000 / 16),
    ):
        self.weights = weights
        self.max_log_scale = max_log_scale

    def decode(self, raw: Tensor, priors: Priors, prior: Tensor) -> Tensor:
        centers, sizes = _centers_and_sizes(_anchors(priors)[prior])
        deltas = raw / on_device(self.weights, raw.device, raw.dtype)
        new_centers = centers + deltas[..., :2] * sizes
        half = 0.5 * sizes * deltas[..., 2:].clamp(max=self.max_log_scale).exp()
        return torch.cat([new_centers - half, new_centers + half], -1)

    def encode(self, boxes: Tensor, priors: Priors, prior: Tensor) -> Tensor:
        centers, sizes = _centers_and_sizes(_anchors(priors)[prior])
        box_centers, box_sizes = _centers_and_sizes(boxes)
        deltas = torch.cat([(box_centers - centers) / sizes, (box_sizes / sizes).log()], -1)
        return deltas * on_device(self.weights, deltas.device, deltas.dtype)


def _anchors(priors: Priors) -> Tensor:
    if priors.boxes is None:
        raise ValueError("DeltaCodec needs priors with anchor boxes; use an anchor generator for this branch")
    return priors.boxes


def _centers_and_sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
