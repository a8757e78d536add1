"""The nearest priors of each level, without an R x G tensor.

The points of a level form a grid. Number its columns from 0 by their distance from a ground truth's centre, and its
rows likewise. The cell in column a and row b is at least as far away as the (a + 1)(b + 1) - 1 other cells of columns
0..a and rows 0..b. So only cells with (a + 1)(b + 1) <= k can be among the k nearest: 23 cells for k = 9, wherever the
centre lies. They are in the k nearest columns and rows, which are consecutive.
"""

import torch
from torch import Tensor

from la_det.steps.candidates import cell_points
from la_det.structures import Priors, Targets, constant

_INFINITE = 0x7F800000  # the bits of an infinite float32


def nearest_priors(priors: Priors, targets: Targets, k: int, extents: Tensor | None = None) -> Tensor:
    """Indices of the priors in the k cells of each level whose points are nearest to a ground truth's centre.

    Args:
        priors: with A priors per cell.
        targets: G ground truths.
        k: cells per level; a level with fewer gives all it has.
        extents: [N, L, 2] columns and rows of each image and level that count; by default all.

    Returns:
        [G, C] int64, level by level, nearest first, ties in the order of the priors; C = A sum over levels min(k, h w).
        -1 takes the place of missing priors where fewer cells count.
    """
    device = targets.boxes.device
    starts, columns_rows, strides = priors.grid_table
    centers = targets.centers.unsqueeze(1)
    position = (centers - priors.shift if priors.shift else centers) / strides  # [G, L, 2] in cells
    if extents is None:
        sizes = columns_rows
        last = constant(tuple((max(w - k, 0), max(h - k, 0)) for h, w in priors.grid_sizes), device, torch.int64)
    else:
        sizes = extents.index_select(0, targets.image)  # [G, L, 2]
        last = (sizes - k).clamp_(min=0)
    first = (position - (priors.offset + k / 2)).ceil_().to(torch.int64).clamp_(min=0).minimum(last)
    cells = first.unsqueeze(-1) + torch.arange(k, device=device)  # [G, L, 2, k] columns, rows
    points = cell_points(cells, strides.unsqueeze(-1), priors)
    distance = (points - centers.unsqueeze(-1)).square_()
    if extents is not None or min(min(size) for size in priors.grid_sizes) < k:
        distance = distance.masked_fill(cells >= sizes.unsqueeze(-1), torch.inf)
    distance, order = distance.sort(stable=True)
    cells = cells.gather(-1, order)

    a, b = constant(tuple((a, b) for a in range(k) for b in range(k) if (a + 1) * (b + 1) <= k), device, torch.int64).T
    distance = distance[:, :, 0, a] + distance[:, :, 1, b]  # [G, L, 23], squared
    cell = cells[:, :, 1, b] * columns_rows[:, :1] + cells[:, :, 0, a]
    # The bits of non-negative floats sort like the floats: this key sorts by distance, then by index.
    key = (distance.view(torch.int32).to(torch.int64) << 32) | cell
    nearest = key.topk(k, largest=False).values  # [G, L, k]

    prior = (nearest & 0xFFFFFFFF).unsqueeze(-1)
    if priors.per_cell > 1:
        prior = prior * priors.per_cell + torch.arange(priors.per_cell, device=device)
    prior = starts.view(-1, 1, 1) + prior
    if extents is not None:
        prior = prior.masked_fill((nearest >> 32 == _INFINITE).unsqueeze(-1), -1)
    existing = [min(k, h * w) * priors.per_cell for h, w in priors.grid_sizes]
    return torch.cat([level[:, :count] for level, count in zip(prior.flatten(2).unbind(1), existing, strict=True)], 1)
