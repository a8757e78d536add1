"""From scores of pairs to positives and their weights."""

from la_det.steps.select.adaptive_threshold import above_threshold, mean_plus_std
from la_det.steps.select.copies import match_copies
from la_det.steps.select.groups import (
    best_in_group,
    best_of_each,
    best_per_prior,
    contested,
    last_of_class,
    rank_in_group,
    topk_in_group,
)
from la_det.steps.select.linear_assignment import match, match_listed
from la_det.steps.select.size_ranges import SIZE_RANGES, in_size_range, possible_levels
from la_det.steps.select.transport import Transport

__all__ = [
    "SIZE_RANGES",
    "Transport",
    "above_threshold",
    "best_in_group",
    "best_of_each",
    "best_per_prior",
    "contested",
    "in_size_range",
    "last_of_class",
    "match",
    "match_copies",
    "match_listed",
    "mean_plus_std",
    "possible_levels",
    "rank_in_group",
    "topk_in_group",
]
