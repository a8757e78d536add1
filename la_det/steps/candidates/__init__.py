"""Which (prior, ground truth) pairs can be positive at all."""

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
from la_det.steps.candidates.overlaps import overlapping_pairs

__all__ = [
    "cell_of",
    "cell_points",
    "center_region",
    "center_windows",
    "every_pair",
    "everywhere",
    "first_cell",
    "grid_cells",
    "in_any_box",
    "in_center_region",
    "inside_box",
    "ltrb_of_pairs",
    "nearest_priors",
    "overlapping_anchors",
    "overlapping_pairs",
    "window_priors",
]
