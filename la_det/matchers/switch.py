"""One matcher after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from la_det.structures import Assignment, DensePredictions, Score, Targets

if TYPE_CHECKING:
    from la_det.matchers import Matcher


class Switch:
    """One matcher in the first part of the training and another one afterwards, as TOOD begins with ATSS.

    Where only one of them gives soft targets, `BySoftTargets` switches the losses.

    Args:
        first, then: the two matchers.
        at: progress from which `then` decides.
    """

    def __init__(self, *, first: Matcher, then: Matcher, at: float):
        self.first = first
        self.then = then
        self.at = at

    def __call__(self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float) -> Assignment:
        return matcher_at(self, progress)(predictions, targets, score=score, progress=progress)


def matcher_at(matcher: Matcher, progress: float) -> Matcher:
    """The matcher that decides at a progress: of a `Switch` one of its two."""
    if not isinstance(matcher, Switch):
        return matcher
    return matcher_at(matcher.first if progress < matcher.at else matcher.then, progress)
