"""Which (prior, ground truth) pairs can be positive at all."""

from la_det.steps.candidates.extents import beyond_extents, grid_extents, smaller_extents, within_extents
from la_det.steps.candidates.grid import (
    cell_of,
    cell_points,
    center_region,
    center_windows,
    every_pair,
    everywhere,
    first_cell,
    grid_cells,
    in_any_box,
    in_center_region,
    inside_box,
    ltrb_of_pairs,
    overlapping_anchors,
    window_priors,
)
from la_det.steps.candidates.nearest import nearest_priors
from la_det.steps.candidates.overlaps import largest_iou, meeting_runs, overlapping_pairs, pairs_of_iou

__all__ = [
    "beyond_extents",
    "cell_of",
    "cell_points",
    "center_region",
    "center_windows",
    "every_pair",
    "everywhere",
    "first_cell",
    "grid_cells",
    "grid_extents",
    "in_any_box",
    "in_center_region",
    "inside_box",
    "largest_iou",
    "ltrb_of_pairs",
    "meeting_runs",
    "nearest_priors",
    "overlapping_anchors",
    "overlapping_pairs",
    "pairs_of_iou",
    "smaller_extents",
    "window_priors",
    "within_extents",
]
