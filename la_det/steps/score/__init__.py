"""Scores of (prior, ground truth) pairs."""

from la_det.steps.score.matching_quality import matching_quality

__all__ = ["matching_quality"]
