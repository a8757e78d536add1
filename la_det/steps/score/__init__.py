"""A number for each pair."""

from la_det.steps.score.detr_cost import DETRCost
from la_det.steps.score.quality import quality

__all__ = ["DETRCost", "quality"]
