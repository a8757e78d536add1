"""The losses of a matcher that gives soft targets in one part of the training only (`Switch`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from la_det.modeling.criteria.decision import Decision
from la_det.modeling.criteria.reduction import LossTerm

if TYPE_CHECKING:
    from la_det.modeling.criteria.criterion import Term


@dataclass(frozen=True)
class BySoftTargets:
    """One loss for assignments without soft targets, and another one for those with them.

    Attributes:
        without, given: the two losses.
    """

    without: Term
    given: Term

    def __call__(self, decision: Decision) -> LossTerm:
        return (self.without if decision.assignment.target is None else self.given)(decision)
