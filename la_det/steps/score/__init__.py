"""A number for each pair."""

from la_det.steps.score.alignment import alignment, normalised_alignment
from la_det.steps.score.quality import quality

__all__ = ["alignment", "normalised_alignment", "quality"]
