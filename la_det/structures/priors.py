"""Where predictions live: points, and optionally anchor boxes, over all levels of one branch."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor


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
        offset: cell (row i, column j) of a level with stride s has its point at ((j + offset) s, (i + offset) s).
        boxes: [R, 4] anchors, XYXY pixels, for branches that have them.
        per_cell: A, the number of priors of a cell.
    """

    points: Tensor
    strides: Tensor
    levels: Tensor
    grid_sizes: tuple[tuple[int, int], ...]
    level_strides: tuple[int, ...]
    offset: float = 0.5
    boxes: Tensor | None = None
    per_cell: int = 1

    def __len__(self) -> int:
        return len(self.points)

    @property
    def level_starts(self) -> list[int]:
        """First prior of each level, and R at the end (L + 1 numbers)."""
        return list(accumulate((h * w * self.per_cell for h, w in self.grid_sizes), initial=0))


class PointGenerator:
    """One point per cell (FCOS, section 3.1).

    Args:
        strides: of the levels, pixels.
        offset: position of the point inside its cell, in cells: 0.5 is the centre, 0 the top-left corner.
    """

    def __init__(self, *, strides: Sequence[int] = (8, 16, 32, 64, 128), offset: float = 0.5):
        self.strides = tuple(strides)
        self.offset = offset

    def __call__(self, grid_sizes: Sequence[tuple[int, int]], device: torch.device) -> Priors:
        """Priors for feature maps of these (rows, columns), finest level first."""
        points, strides, levels = [], [], []
        for level, ((h, w), s) in enumerate(zip(grid_sizes, self.strides, strict=True)):
            y = (torch.arange(h, device=device, dtype=torch.float32) + self.offset) * s
            x = (torch.arange(w, device=device, dtype=torch.float32) + self.offset) * s
            grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
            points.append(torch.stack([grid_x, grid_y], -1).flatten(0, 1))
            strides.append(torch.full((h * w,), float(s), device=device))
            levels.append(torch.full((h * w,), level, device=device))
        return Priors(
            torch.cat(points),
            torch.cat(strides),
            torch.cat(levels),
            tuple((int(h), int(w)) for h, w in grid_sizes),
            self.strides,
            self.offset,
        )
