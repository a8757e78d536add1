"""FCOS: size ranges per level (Tian et al., ICCV 2019, section 3.2) and centre sampling (TPAMI 2020)."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from la_det.steps.candidates import center_region, ltrb_of_pairs
from la_det.steps.select import SIZE_RANGES, best_per_prior, in_size_range, possible_levels
from la_det.structures import Assignment, DensePredictions, Score, Targets


class FCOS:
    """Positives are all points of the centre region on levels whose size range fits; the smallest box wins a point.

    Args:
        size_ranges: per level the smallest and largest allowed max(l, t, r, b) in pixels, both inclusive.
        center_radius: half side of the centre region in strides; 0 takes the whole box.
        margin: a positive lies more than this many pixels inside each side of the box.
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
        levels = possible_levels(inset, self.size_ranges)
        pairs, inside = center_region(priors, inset, self.center_radius, levels=levels)
        ltrb = ltrb_of_pairs(pairs, priors, inset)
        fits = inside & in_size_range(ltrb, pairs, priors, self.size_ranges)
        if self.margin:
            fits &= ltrb.amin(-1) > self.margin
        best = best_per_prior(pairs, -targets.areas[pairs.gt], priors, targets.num_images, among=fits)
        return Assignment(pairs[best])  # host synchronisation: the number of positives
