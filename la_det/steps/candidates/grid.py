"""Candidate pairs from geometry, without an R x G tensor.

The points of a level form a grid, so the points strictly inside a box are a rectangle of cells. Arithmetic gives its
borders: it takes O(G L) work to find the rectangles and O(P) work to list their P cells.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from la_det.geometry import ltrb_distances
from la_det.structures import Pairs, Priors, Targets, constant

_FAR = 2**23  # cells; no grid is that large


def inside_box(priors: Priors, targets: Targets, levels: Tensor | None = None) -> Pairs:
    """All pairs (point, ground truth) whose point lies strictly inside the ground truth's box.

    Args:
        levels: [G, L] bool, which levels count; by default all.

    Returns:
        Pairs ordered by ground truth, then prior.
    """
    first, end = _cells_inside(priors, targets)
    extent = end - first
    return grid_cells(priors, targets, first, extent if levels is None else extent * levels.unsqueeze(-1))


def in_any_box(priors: Priors, targets: Targets) -> Tensor:
    """Whether points lie strictly inside the box of some ground truth of their image: [N, R] bool.

    The cells inside a box are a rectangle of each level. Differences at its four corners, summed along rows and
    columns, fill it with ones, whatever its size.
    """
    if priors.per_cell != 1:
        raise ValueError("boxes cover points where there is one prior per cell")
    _, columns_rows, strides = priors.grid_table
    num_levels, size = len(strides), [max(side) + 1 for side in zip(*priors.grid_sizes, strict=True)]  # rows, columns
    first, end = _cells_inside(priors, targets)
    end = end.clamp(min=0).minimum(columns_rows)
    x, y = torch.stack([first.clamp(min=0).minimum(end), end]).unbind(-1)  # [2, G, L] each
    plane = targets.image.unsqueeze(1) * num_levels + torch.arange(num_levels, device=x.device)
    corner = (plane * size[0] + y.unsqueeze(1)) * size[1] + x  # [2, 2, G, L]
    sign = constant(((1, -1), (-1, 1)), x.device, torch.int32)[..., None, None].expand(corner.shape)
    planes = torch.zeros(targets.num_images * num_levels * size[0] * size[1], dtype=torch.int32, device=x.device)
    planes.index_add_(0, corner.flatten(), sign.flatten())
    planes = planes.view(-1, *size).cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32)
    column, row = cell_of(priors.points, priors.strides.unsqueeze(1), priors).round().long().unbind(1)
    place = (priors.levels * size[0] + row) * size[1] + column
    return planes.view(targets.num_images, -1).index_select(1, place) > 0


def _cells_inside(priors: Priors, targets: Targets) -> tuple[Tensor, Tensor]:
    """The first cell whose point lies inside each box, and the first one beyond: [G, L, 2] column and row each."""
    strides = priors.grid_table[2]
    lower, upper = targets.boxes.unsqueeze(1).split(2, -1)
    # A box with a NaN bound contains no point.
    lower = lower.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    return first_cell(lower, strides, priors, torch.le), first_cell(upper, strides, priors, torch.lt)


def center_region(
    priors: Priors,
    targets: Targets,
    radius: float,
    centers: Tensor | None = None,
    levels: Tensor | None = None,
) -> tuple[Pairs, Tensor]:
    """Pairs (point, ground truth), and which of them are those whose point lies in the ground truth's centre region.

    The region is open: the part of a square around the centre that is inside the box. All its points are among the
    pairs. The GPU is waited for only if the region is the whole box.

    Args:
        radius: half side of the square around the ground truth's centre, in strides of the point's level
            (FCOS's centre sampling; 1.5 allows at most 3 x 3 points of a level). 0 means the whole box.
        centers: [G, 2] centres of the regions, by default of the boxes. A region with a NaN centre has no points.
        levels: [G, L] bool, outside of which no pair matters; by default every level matters.

    Returns:
        Pairs [P], ordered by ground truth; those in the region also by prior. [P] bool, whether it is in the region.
    """
    if radius == 0:
        pairs = inside_box(priors, targets, levels)
        return pairs, torch.ones_like(pairs.gt, dtype=torch.bool)
    prior, inside = center_windows(priors, targets, radius, centers)
    return every_pair(prior, targets), inside.flatten()


def center_windows(
    priors: Priors, targets: Targets, radius: float, centers: Tensor | None = None, *, clipped: bool = True
) -> tuple[Tensor, Tensor]:
    """The points of centre regions as a table with places for all points that a region can have.

    With `clipped=False` the boxes do not matter: the points may lie outside.

    An open region of `2 radius` cells holds at most ceil(2 radius) columns and rows of a level. So each ground truth
    has W places, and the points of all places are compared at once.

    Returns:
        [G, W] int64 priors in their order, 0 at an empty place; and [G, W] bool whether a place holds a prior.
    """
    if priors.per_cell != 1:
        raise ValueError("a centre region needs one prior per cell")
    _, columns_rows, strides = priors.grid_table
    centers = (targets.centers if centers is None else centers).unsqueeze(1)
    lower, upper = _region(centers, radius * strides, targets.boxes.unsqueeze(1), clipped)  # [G, L, 2]

    first = cell_of(lower, strides, priors).floor()
    for _ in range(2):  # the first point beyond the bound is this or the next one, or, by rounding, the one after
        first = first + (cell_points(first, strides, priors) <= lower)
    first = first.clamp(min=0).minimum(columns_rows)
    cells = first.unsqueeze(-1) + torch.arange(math.ceil(2 * radius), device=first.device)  # [G, L, 2, side]
    points = cell_points(cells, strides.unsqueeze(-1), priors)
    inside = (points > lower.unsqueeze(-1)) & (points < upper.unsqueeze(-1)) & (cells < columns_rows.unsqueeze(-1))
    return window_priors(cells, inside, priors)


def in_center_region(pairs: Pairs, priors: Priors, targets: Targets, radius: float, *, clipped: bool = True) -> Tensor:
    """Whether the points of pairs are among what `center_windows` finds: [P] bool."""
    centers, boxes = (x.index_select(0, pairs.gt) for x in (targets.centers, targets.boxes))
    half = radius * priors.strides.index_select(0, pairs.prior).unsqueeze(1)
    lower, upper = _region(centers, half, boxes, clipped)
    points = priors.points.index_select(0, pairs.prior)
    return ((points > lower) & (points < upper)).all(1)


def _region(centers: Tensor, half: Tensor, boxes: Tensor, clipped: bool) -> tuple[Tensor, Tensor]:
    """Lower and upper corners [..., 2] of squares around centres, inside the boxes if `clipped`."""
    lower, upper = centers - half, centers + half
    if clipped:
        return torch.maximum(lower, boxes[..., :2]), torch.minimum(upper, boxes[..., 2:])
    return lower, upper


def window_priors(cells: Tensor, exist: Tensor, priors: Priors) -> tuple[Tensor, Tensor]:
    """The priors of one square of cells for each ground truth and level.

    Args:
        cells: [G, L, 2, side] columns and rows.
        exist: [G, L, 2, side] bool, which columns and rows are wanted; these must be on the grid.
        priors: with one prior per cell.

    Returns:
        [G, W] int64 priors in their order, 0 at a cell that is not wanted; and [G, W] bool whether a cell is wanted.
    """
    starts, columns_rows, _ = priors.grid_table
    wanted = exist[:, :, 1, :, None] & exist[:, :, 0, None, :]  # [G, L, rows, columns]
    column, row = cells.to(torch.int64).unbind(2)
    prior = starts.view(-1, 1, 1) + row.unsqueeze(3) * columns_rows[:, :1, None] + column.unsqueeze(2)
    return prior.masked_fill(~wanted, 0).flatten(1), wanted.flatten(1)


def overlapping_anchors(priors: Priors, targets: Targets, min_iou: Tensor, extents: Tensor) -> Pairs:
    """All pairs (anchor, ground truth) whose IoU is positive and at least `min_iou`, and some pairs below it.

    An IoU of at least t means an intersection of at least t / (1 + t) (A_a + A_g). Then the overlap in x is at least
    this area divided by the smaller height, and likewise in y. So the cells of a level form a rectangle.

    Args:
        min_iou: [G], t of each ground truth.
        extents: [N, L, 2] number of columns and rows that count, of each image and level.

    Returns:
        Pairs ordered by ground truth.
    """
    device, a = targets.boxes.device, priors.per_cell
    starts, _, strides = priors.grid_table
    shapes = priors.boxes[(starts.unsqueeze(1) + torch.arange(a, device=device)).flatten()]  # [L A, 4]
    sizes, gt_sizes = shapes[:, 2:] - shapes[:, :2], (targets.boxes[:, 2:] - targets.boxes[:, :2]).unsqueeze(1)
    t = 0.999 * min_iou.unsqueeze(1)  # rounding must not lose a pair
    intersection = t / (1 + t) * (sizes.prod(-1) + gt_sizes.prod(-1))  # [G, L A]
    shorter = torch.minimum(sizes, gt_sizes)
    overlap = intersection.unsqueeze(-1) / shorter.flip(-1)
    possible = (overlap <= shorter).all(-1, keepdim=True)
    strides = _per_prior_of_cell(strides, a)
    reach = (sizes + gt_sizes) / 2 - overlap + 0.01 * strides  # rounding must not lose a cell
    centers = targets.centers.unsqueeze(1)
    bounds = cell_of(torch.stack([centers - reach, centers + reach]), strides, priors)  # [2, G, L A, 2]
    lower, upper = bounds.nan_to_num_(nan=0.0).clamp_(-_FAR, _FAR)
    first, last = lower.ceil_().to(torch.int64), upper.floor_().to(torch.int64) + 1
    last = last.minimum(_per_prior_of_cell(extents[targets.image], a))
    return grid_cells(priors, targets, first, (last - first) * possible)


def every_pair(prior: Tensor, targets: Targets) -> Pairs:
    """Pairs of each ground truth with each of its priors [G, W]: G W pairs."""
    gt = torch.arange(len(targets), device=prior.device).unsqueeze(1)
    return Pairs(*(x.expand_as(prior).flatten() for x in (targets.image.unsqueeze(1), prior, gt)))


def everywhere(gts: Tensor, targets: Targets, num_priors: int) -> Pairs:
    """Some ground truths [g], each with all priors of its image: g R pairs."""
    prior = torch.arange(num_priors, device=gts.device).expand(len(gts), -1)
    image = targets.image.index_select(0, gts).unsqueeze(1)
    return Pairs(*(x.expand_as(prior).flatten() for x in (image, prior, gts.unsqueeze(1))))


def ltrb_of_pairs(pairs: Pairs, priors: Priors, targets: Targets) -> Tensor:
    """[P, 4] distances of the pairs' points to the sides of their ground truths, pixels."""
    points = priors.points.index_select(0, pairs.prior)
    return ltrb_distances(points, targets.boxes.index_select(0, pairs.gt))


def grid_cells(priors: Priors, targets: Targets, first: Tensor, extent: Tensor) -> Pairs:
    """The priors in one rectangle of cells per ground truth, level and prior of a cell, without cells off the grid.

    Args:
        first: [G, L A, 2] int64 column and row of the rectangle's first cell.
        extent: [G, L A, 2] int64 number of columns and rows. If one is not positive, the rectangle is empty.

    Returns:
        Pairs ordered by ground truth, then rectangle, then cell: for A = 1, by prior.
    """
    a = priors.per_cell
    if first.shape[1] != len(priors.level_strides) * a:
        raise ValueError(f"grid candidates need {a} rectangles per level, for as many priors per cell")
    starts, columns_rows, _ = priors.grid_table
    columns_rows = _per_prior_of_cell(columns_rows, a)
    end = (first + extent).clamp(min=0).minimum(columns_rows)
    first = first.clamp(min=0)
    width, height = (end - first).clamp(min=0).flatten(0, 1).unbind(-1)  # [G * L A]
    height = height * (width > 0)
    num_rows, total = torch.stack([height.sum(), (height * width).sum()]).tolist()  # host synchronisation

    columns, corner = columns_rows[:, 0], first[..., 1] * columns_rows[:, 0] + first[..., 0]
    if a > 1:
        starts = (starts.unsqueeze(1) + torch.arange(a, device=first.device)).flatten()
        columns, corner = columns * a, corner * a
    corner = (starts + corner).flatten()  # prior of each first cell
    rectangle, row = _repeat(height, num_rows)
    gt, level = rectangle.div(len(starts), rounding_mode="floor"), rectangle % len(starts)
    start = corner[rectangle] + row * columns[level]  # the first prior of each row of a rectangle
    of_row, column = _repeat(width[rectangle], total)
    gt = gt.index_select(0, of_row)
    prior = torch.add(start.index_select(0, of_row), column, alpha=a)
    return Pairs(targets.image.index_select(0, gt), prior, gt)


def _repeat(counts: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """Each element repeated `counts` times: its index [total], and the number of the repetition [total] from 0."""
    index = torch.repeat_interleave(counts, output_size=total)
    return index, torch.arange(total, device=counts.device) - (counts.cumsum(0) - counts).index_select(0, index)


def _per_prior_of_cell(x: Tensor, per_cell: int) -> Tensor:
    """Rows [..., L, C] of the levels, repeated for each prior of a cell: [..., L A, C]."""
    return x if per_cell == 1 else x.repeat_interleave(per_cell, -2)


def first_cell(bound: Tensor, stride: Tensor, priors: Priors, before: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Index of the first cell along each axis whose point is not `before` the bound.

    The division only gives a guess. The points are compared, so rounding cannot move a cell across a border.
    """
    # Far-away and non-finite bounds must not overflow the integers.
    cell = cell_of(bound, stride, priors).floor().nan_to_num_(nan=0.0).clamp_(-_FAR, _FAR)
    # It is the guess or the next cell, or by rounding the one after.
    for _ in range(2):
        cell = cell + before(cell_points(cell, stride, priors), bound)
    return cell.to(torch.int64)


def cell_of(position: Tensor, stride: Tensor, priors: Priors) -> Tensor:
    """Columns or rows, not rounded, of positions in pixels."""
    return (position - priors.shift if priors.shift else position) / stride - priors.offset


def cell_points(cell: Tensor, stride: Tensor, priors: Priors) -> Tensor:
    """Coordinates in pixels of the points of columns or rows."""
    point = (cell + priors.offset) * stride
    return point + priors.shift if priors.shift else point
