"""Candidate pairs from geometry, without an R x G tensor.

The points of a level form a grid, so those strictly inside a box are a rectangle of cells whose borders follow from
arithmetic: O(G L) work to find the rectangles, O(P) to list their P cells.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from la_det.structures import Pairs, Priors, Targets, on_device


def inside_box(priors: Priors, targets: Targets) -> Pairs:
    """All (point, ground truth) with the point strictly inside the ground truth's box, on every level."""
    windows = targets.boxes.unsqueeze(1).expand(-1, len(priors.level_strides), -1)
    return _points_in_windows(priors, targets, windows)


def center_region(priors: Priors, targets: Targets, radius: float, centers: Tensor | None = None) -> Pairs:
    """All (point, ground truth) with the point strictly inside the box and its centre region, on every level.

    Args:
        radius: half side of the square around the ground truth's centre, in strides of the point's level
            (FCOS's centre sampling; 1.5 allows at most 3 x 3 points of a level). 0 means the whole box.
        centers: [G, 2] of the regions, by default of the boxes; one of NaN has no points.
    """
    if radius == 0:
        return inside_box(priors, targets)
    strides = on_device(priors.level_strides, targets.boxes.device, torch.float32)
    half = (radius * strides)[None, :, None]
    centers = (targets.centers if centers is None else centers).unsqueeze(1)
    boxes = targets.boxes.unsqueeze(1)
    lower = torch.maximum(centers - half, boxes[..., :2])
    upper = torch.minimum(centers + half, boxes[..., 2:])
    return _points_in_windows(priors, targets, torch.cat([lower, upper], -1))


def overlapping_anchors(priors: Priors, targets: Targets, min_iou: Tensor, extents: Tensor) -> Pairs:
    """All (anchor, ground truth) whose IoU is positive and at least `min_iou`, and others close to that.

    An intersection I is at least t U only if it is at least t / (1 + t) (A_a + A_g), and then the overlap in x is at
    least that over the lower height: so the cells of a level form a rectangle.

    Args:
        min_iou: [G], t of each ground truth.
        extents: [N, L, 2] columns and rows of each image and level that count.

    Returns:
        Pairs ordered by ground truth.
    """
    device, a = targets.boxes.device, priors.per_cell
    starts = on_device(priors.level_starts[:-1], device).unsqueeze(1)
    shapes = priors.boxes[(starts + torch.arange(a, device=device)).flatten()]  # [L A, 4]
    sizes, gt_sizes = shapes[:, 2:] - shapes[:, :2], (targets.boxes[:, 2:] - targets.boxes[:, :2]).unsqueeze(1)
    t = 0.999 * min_iou.unsqueeze(1)  # rounding must not lose a pair
    intersection = t / (1 + t) * (sizes.prod(-1) + gt_sizes.prod(-1))  # [G, L A]
    shorter = torch.minimum(sizes, gt_sizes)
    overlap = intersection.unsqueeze(-1) / shorter.flip(-1)
    possible = (overlap <= shorter).all(-1, keepdim=True)
    reach = (sizes + gt_sizes) / 2 - overlap

    strides = on_device(priors.level_strides, device, torch.float32).repeat_interleave(a).unsqueeze(-1)
    centers = targets.centers.unsqueeze(1)
    windows = torch.cat([centers - reach, centers + reach], -1)  # [G, L A, 4]
    first = first_cell(windows[..., :2], strides, priors, torch.lt)
    last = first_cell(windows[..., 2:], strides, priors, torch.le)
    last = last.minimum(extents.repeat_interleave(a, 1)[targets.image])
    return grid_cells(priors, targets, first, (last - first) * possible)


def ltrb_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Distances [..., 4] from points [..., 2] to the left, top, right and bottom sides of boxes [..., 4], pixels."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], -1)


def grid_cells(priors: Priors, targets: Targets, first: Tensor, extent: Tensor) -> Pairs:
    """The priors in one rectangle of cells per ground truth, level and prior of a cell, as far as they are on the grid.

    Args:
        first: [G, L A, 2] int64 column and row of the rectangle's first cell.
        extent: [G, L A, 2] int64 number of columns and rows; nothing where one is not positive.

    Returns:
        Pairs ordered by ground truth, then rectangle, then cell: for A = 1, by prior.
    """
    a = priors.per_cell
    if first.shape[1] != len(priors.level_strides) * a:
        raise ValueError(f"grid candidates need {a} rectangles per level, for as many priors per cell")
    sizes = on_device(priors.grid_sizes, first.device).repeat_interleave(a, 0)  # [L A, 2] rows, columns
    columns_rows = sizes.flip(-1)
    end = (first + extent).clamp(min=0).minimum(columns_rows)
    first = first.clamp(min=0).minimum(columns_rows)
    extent = (end - first).clamp(min=0)
    width, height = extent.flatten(0, 1).unbind(-1)  # [G * L A]
    height = height * (width > 0)
    num_rows, total = torch.stack([height.sum(), (height * width).sum()]).tolist()  # host synchronisation

    starts = on_device(priors.level_starts[:-1], first.device).repeat_interleave(a)
    starts = starts + torch.arange(a, device=first.device).repeat(len(priors.level_strides))
    corner = (starts + (first[..., 1] * sizes[:, 1] + first[..., 0]) * a).flatten()  # prior of each first cell
    rectangle, row = _repeat(height, num_rows)
    gt, level = rectangle.div(len(sizes), rounding_mode="floor"), rectangle % len(sizes)
    start = corner[rectangle] + row * sizes[level, 1] * a  # the first prior of each row of a rectangle
    of_row, column = _repeat(width[rectangle], total)
    gt = gt.index_select(0, of_row)
    return Pairs(targets.image.index_select(0, gt), start.index_select(0, of_row) + column * a, gt)


def _repeat(counts: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """[total] index of each repeated element, and how many of its repetitions come before."""
    index = torch.repeat_interleave(counts, output_size=total)
    return index, torch.arange(total, device=counts.device) - (counts.cumsum(0) - counts).index_select(0, index)


def _points_in_windows(priors: Priors, targets: Targets, windows: Tensor) -> Pairs:
    """Points strictly inside per-level windows [G, L, 4] XYXY; ordered by ground truth, then prior."""
    strides = on_device(priors.level_strides, windows.device, torch.float32).unsqueeze(-1)
    # No point is beyond a bound that is NaN.
    lower = windows[..., :2].masked_fill(windows[..., :2].isnan(), torch.inf)
    first = first_cell(lower, strides, priors, torch.le)
    last = first_cell(windows[..., 2:], strides, priors, torch.lt)
    return grid_cells(priors, targets, first, last - first)


def first_cell(bound: Tensor, stride: Tensor, priors: Priors, before: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Index of the first cell along each axis whose point is not `before` the bound.

    The division only guesses; points themselves are compared, so that rounding cannot move a cell across a border.
    """
    # Far-away and non-finite bounds must not overflow the integers; no grid is that large.
    guess = ((bound - priors.shift) / stride - priors.offset).floor()
    cell = guess.nan_to_num(nan=0.0).clamp(-(2**30), 2**30).to(torch.int64) - 1
    for _ in range(3):
        cell = cell + before((cell + priors.offset) * stride + priors.shift, bound).to(cell.dtype)
    return cell
