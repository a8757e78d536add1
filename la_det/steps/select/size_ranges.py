"""FCOS's division of work between the levels by size (ICCV 2019, section 3.2)."""

from collections.abc import Sequence

from torch import Tensor

from la_det.structures import Pairs, Priors, Targets, constant

SIZE_RANGES = ((-1, 64), (64, 128), (128, 256), (256, 512), (512, float("inf")))


def possible_levels(targets: Targets, size_ranges: Sequence[tuple[float, float]]) -> Tensor:
    """[G, L] bool, whether some point inside the box can be in the level's size range.

    Inside a box, max(l, t, r, b) is at least half the longer side and at most the longer side, up to rounding.
    """
    longest = (targets.boxes[:, 2:] - targets.boxes[:, :2]).amax(1, keepdim=True)
    low, high = constant(tuple(map(tuple, size_ranges)), longest.device, longest.dtype).unbind(1)
    return (longest * 1.001 >= low) & (longest * 0.499 <= high)


def in_size_range(ltrb: Tensor, pairs: Pairs, priors: Priors, size_ranges: Sequence[tuple[float, float]]) -> Tensor:
    """[P] whether max(l, t, r, b) of the pair lies in the size range of the location's level, borders included.

    Args:
        ltrb: [P, 4] distances from the pairs' locations to the sides of their ground truths, pixels.
    """
    reach = ltrb.amax(-1)
    ranges = constant(tuple(map(tuple, size_ranges)), reach.device, reach.dtype)
    low, high = ranges[priors.levels[pairs.prior]].unbind(-1)
    return (low <= reach) & (reach <= high)
