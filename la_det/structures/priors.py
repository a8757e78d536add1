"""Where predictions live: points, and optionally anchor boxes, over all levels of one branch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from la_det.structures.no_wait import constant, recording


@dataclass(frozen=True)
class Priors:
    """The R priors of one branch, the same for every image of a batch.

    Order: level by level, row-major inside a level, then the A priors of a cell.

    Attributes:
        points: [R, 2] (x, y) in pixels of the padded network input.
        strides: [R] stride of each prior's level, pixels.
        levels: [R] index of each prior's level.
        grid_sizes: (rows, columns) of each level.
        level_strides: stride of each level, pixels.
        offset: cell (row i, column j) of a level with stride s has its point at
            ((j + offset) s + shift, (i + offset) s + shift).
        box_offset: the convention of the network. Boxes are in continuous coordinates under both conventions; only
            `shift` and `inset` differ.
            0: continuous.
            1: pixel-inclusive (the width of a box is x2 - x1 + 1).
        boxes: [R, 4] anchors, XYXY pixels, for branches that have them.
        per_cell: A, the number of priors of a cell.
    """

    points: Tensor
    strides: Tensor
    levels: Tensor
    grid_sizes: tuple[tuple[int, int], ...]
    level_strides: tuple[int, ...]
    offset: float = 0.5
    box_offset: int = 0
    boxes: Tensor | None = None
    per_cell: int = 1
    _layouts: dict[tuple[int, int], Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.points)

    @property
    def shift(self) -> float:
        """Pixels that the convention adds to both coordinates of every point."""
        return self.box_offset / 2

    def inset(self, boxes: Tensor) -> Tensor:
        """Boxes [..., 4] for formulas in which the pixel-inclusive convention leaves out its "+ 1".

        In these formulas (distances to sides, GIoU) a box is one pixel smaller, by half a pixel on each side. A side
        shorter than a pixel becomes 0.
        """
        if self.box_offset == 0:
            return boxes
        lower = boxes[..., :2] + self.shift
        return torch.cat([lower, torch.maximum(boxes[..., 2:] - self.shift, lower)], -1)

    def at_origin(self) -> "Priors":
        """The priors moved to the origin: with them, a codec decodes each box relative to its prior's point.

        Such boxes keep the precision of the predicted distances; adding the points would round them.
        """
        boxes = None if self.boxes is None else self.boxes - self.points.repeat(1, 2)
        return replace(self, points=torch.zeros_like(self.points), boxes=boxes)

    @cached_property
    def level_starts(self) -> list[int]:
        """First prior of each level, and R at the end (L + 1 numbers)."""
        return list(accumulate((h * w * self.per_cell for h, w in self.grid_sizes), initial=0))

    @cached_property
    def grid_table(self) -> tuple[Tensor, Tensor, Tensor]:
        """Per level: first prior [L] int64, columns and rows [L, 2] int64, stride [L, 1] pixels."""
        device = self.points.device
        starts = constant(tuple(self.level_starts[:-1]), device, torch.int64)
        columns_rows = constant(tuple((w, h) for h, w in self.grid_sizes), device, torch.int64)
        return starts, columns_rows, constant(tuple((s,) for s in self.level_strides), device, torch.float32)

    @cached_property
    def points_twice(self) -> Tensor:
        """[R, 4] (x, y, x, y)."""
        return torch.cat([self.points, self.points], 1)

    @cached_property
    def centers_and_sizes(self) -> Tensor:
        """[R, 4] (x, y, width, height) of the anchors."""
        lower, upper = self.boxes.split(2, 1)
        return torch.cat([(lower + upper) / 2, upper - lower], 1)

    def layout(self, num_images: int, channels: int) -> Tensor:
        """Where a prior's values lie, after maps [N, A C, h, w] of all levels are flattened one after the other.

        Args:
            num_images: N.
            channels: A C.

        Returns:
            [R, 2] int64: the position of the prior's first channel in the first image, and the step from channel to
            channel. The step from image to image is A C times as large.
        """
        if (num_images, channels) not in self._layouts:
            starts, columns_rows, _ = self.grid_table
            start, step = starts[self.levels], columns_rows.prod(1)[self.levels]
            inside = torch.arange(len(self), device=start.device) - start
            cell, k = inside.div(self.per_cell, rounding_mode="floor"), inside % self.per_cell
            of_cell = channels // self.per_cell
            first = start * (num_images * of_cell) + k * (of_cell * step) + cell
            self._layouts[num_images, channels] = torch.stack([first, step], 1)
        return self._layouts[num_images, channels]


class PointGenerator:
    """One point per cell (FCOS, section 3.1).

    Args:
        strides: stride of each level, pixels.
        offset: position of the point inside its cell, in cells: 0.5 is the centre, 0 the top-left corner.
        box_offset: see `Priors`.
    """

    per_cell = 1

    def __init__(self, *, strides: Sequence[int] = (8, 16, 32, 64, 128), offset: float = 0.5, box_offset: int = 0):
        self.strides = tuple(strides)
        self.offset = offset
        self.box_offset = box_offset

    def __call__(self, grid_sizes: Sequence[tuple[int, int]], device: torch.device) -> Priors:
        """Priors for feature maps of these (rows, columns), finest level first."""
        return _made_once(_points, grid_sizes, device, self.strides, self.offset, self.box_offset)


def _made_once(
    make: Callable[..., Priors], grid_sizes: Sequence[tuple[int, int]], device: torch.device, *options: Any
) -> Priors:
    """The result of `make(grid_sizes, device, *options)`, which is called once for equal arguments."""
    sizes = tuple(map(tuple, grid_sizes))
    if recording():
        return make(sizes, device, *options)
    return _cached(make, sizes, torch.device(device), *options)


@lru_cache(maxsize=32)  # multi-scale training has some hundred sizes; 1 MB each at 800 x 1333
def _cached(make: Callable[..., Priors], *arguments: Any) -> Priors:
    with torch.inference_mode(False):  # training may save them for its backward pass
        return make(*arguments)


def _points(
    grid_sizes: tuple[tuple[int, int], ...],
    device: torch.device,
    level_strides: tuple[int, ...],
    offset: float,
    box_offset: int,
) -> Priors:
    points, strides, levels = [], [], []
    shift = box_offset / 2
    for level, ((h, w), s) in enumerate(zip(grid_sizes, level_strides, strict=True)):
        y = (torch.arange(h, device=device, dtype=torch.float32) + offset) * s + shift
        x = (torch.arange(w, device=device, dtype=torch.float32) + offset) * s + shift
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        points.append(torch.stack([grid_x, grid_y], -1).flatten(0, 1))
        strides.append(torch.full((h * w,), float(s), device=device))
        levels.append(torch.full((h * w,), level, device=device))
    return Priors(
        torch.cat(points), torch.cat(strides), torch.cat(levels), grid_sizes, level_strides, offset, box_offset
    )


class AnchorGenerator:
    """A = ratios x sizes anchors per cell, around the cell's point.

    Args:
        strides: stride of each level, pixels.
        sizes: sides of the square anchors, in strides of their level (the square root of the area for other ratios).
        ratios: height / width.
        sizes_first: order the priors of a cell size by size, as Detectron2 does, instead of ratio by ratio.
        offset, box_offset: see `PointGenerator`.
    """

    def __init__(
        self,
        *,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        sizes: Sequence[float] = (4.0,),
        ratios: Sequence[float] = (1.0,),
        sizes_first: bool = False,
        offset: float = 0.5,
        box_offset: int = 0,
    ):
        self.strides = tuple(strides)
        self.sizes = tuple(sizes)
        self.ratios = tuple(ratios)
        self.sizes_first = sizes_first
        self.offset = offset
        self.box_offset = box_offset

    @property
    def per_cell(self) -> int:
        """A, the number of anchors of a cell."""
        return len(self.ratios) * len(self.sizes)

    def __call__(self, grid_sizes: Sequence[tuple[int, int]], device: torch.device) -> Priors:
        """Priors for feature maps of these (rows, columns), finest level first."""
        pairs = [(ratio, size) for ratio in self.ratios for size in self.sizes]
        if self.sizes_first:
            pairs = [(ratio, size) for size in self.sizes for ratio in self.ratios]
        half_sides = tuple((size / ratio**0.5 / 2, size * ratio**0.5 / 2) for ratio, size in pairs)
        return _made_once(_anchors, grid_sizes, device, self.strides, self.offset, self.box_offset, half_sides)


def _anchors(
    grid_sizes: tuple[tuple[int, int], ...],
    device: torch.device,
    level_strides: tuple[int, ...],
    offset: float,
    box_offset: int,
    half_sides: tuple[tuple[float, float], ...],
) -> Priors:
    priors = _points(grid_sizes, device, level_strides, offset, box_offset)
    a = len(half_sides)
    half = priors.strides[:, None, None] * constant(half_sides, device, torch.float32)  # [cells, A, 2]
    centers = priors.points.unsqueeze(1)
    return replace(
        priors,
        points=priors.points.repeat_interleave(a, 0),
        strides=priors.strides.repeat_interleave(a),
        levels=priors.levels.repeat_interleave(a),
        boxes=torch.cat([centers - half, centers + half], -1).flatten(0, 1),
        per_cell=a,
    )
