"""FCOS: size ranges per level (Tian et al., ICCV 2019, section 3.2) and centre sampling (TPAMI 2020)."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from la_det.matchers.candidates import center_region, ltrb_distances
from la_det.matchers.selection import best_per_prior
from la_det.structures import Assignment, DensePredictions, Pairs, Priors, Score, Targets, on_device

SIZE_RANGES = ((-1, 64), (64, 128), (128, 256), (256, 512), (512, float("inf")))


class FCOS:
    """One-to-many: every point of the centre region on the levels whose size range fits; overlaps to the smallest box.

    Args:
        size_ranges: per level the smallest and largest allowed max(l, t, r, b) in pixels, both inclusive.
        center_radius: half side of the centre region in strides; 0 takes the whole box.
        margin: distance by which a point must lie inside the box, exclusive, pixels.
    """

    def __init__(
        self,
        *,
        size_ranges: Sequence[tuple[float, float]] = SIZE_RANGES,
        center_radius: float = 1.5,
        margin: float = 0.0,
    ):
        self.size_ranges = size_ranges
        self.center_radius = center_radius
        self.margin = margin

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        priors = predictions.priors
        inset = replace(targets, boxes=priors.inset(targets.boxes))
        pairs = center_region(priors, inset, self.center_radius)
        pairs = pairs[in_size_range(pairs, priors, inset, self.size_ranges)]  # host synchronisation
        if self.margin:
            ltrb = ltrb_distances(priors.points[pairs.prior], inset.boxes[pairs.gt])
            pairs = pairs[ltrb.amin(-1) > self.margin]  # host synchronisation
        return Assignment(pairs[best_per_prior(pairs, -targets.areas[pairs.gt], priors, targets.num_images)])


def in_size_range(pairs: Pairs, priors: Priors, targets: Targets, size_ranges: Sequence[tuple[float, float]]) -> Tensor:
    """[P] whether max(l, t, r, b) of the pair lies in the size range of the location's level, borders included."""
    reach = ltrb_distances(priors.points[pairs.prior], targets.boxes[pairs.gt]).amax(-1)
    low, high = on_device(size_ranges, reach.device, reach.dtype)[priors.levels[pairs.prior]].unbind(-1)
    return (low <= reach) & (reach <= high)
