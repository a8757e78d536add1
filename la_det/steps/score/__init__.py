"""Scores of (prior, ground truth) pairs."""

from la_det.steps.score.alignment import alignment, normalised_alignment
from la_det.steps.score.detr_cost import DETRCost, query_probabilities
from la_det.steps.score.matching_quality import matching_quality

__all__ = ["DETRCost", "alignment", "matching_quality", "normalised_alignment", "query_probabilities"]
