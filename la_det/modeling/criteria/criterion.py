"""A criterion: how one branch is trained."""

from typing import Protocol

from torch import nn

from la_det.matchers import Matcher
from la_det.modeling.criteria.reduction import LossTerm
from la_det.structures import Assignment, DensePredictions, Score, Targets


class Term(Protocol):
    """One loss of a criterion."""

    def __call__(
        self, predictions: DensePredictions, targets: Targets, assignment: Assignment, score: Score
    ) -> LossTerm: ...


class Criterion(nn.Module):
    """Assigns labels with a matcher, then evaluates loss terms on the assignment.

    Args:
        matcher: the label-assignment scheme.
        losses: name of each loss -> its term.
        score: the classification probability that matcher and losses share.
        branch: name of the head's branch that is trained.
        keep_ignored: whether the matcher sees ignored ground truths; otherwise their area is background.
    """

    def __init__(
        self,
        *,
        matcher: Matcher,
        losses: dict[str, Term],
        score: Score | None = None,
        branch: str = "main",
        keep_ignored: bool = False,
    ):
        super().__init__()
        self.matcher = matcher
        self.losses = dict(losses)
        self.score = score or Score()
        self.branch = branch
        self.keep_ignored = keep_ignored

    def assign(self, predictions: DensePredictions, targets: Targets, progress: float) -> tuple[Targets, Assignment]:
        """The targets the matcher saw, and what it decided about them."""
        targets = targets if self.keep_ignored else targets.without_ignored()
        return targets, self.matcher(predictions.detach(), targets, score=self.score, progress=progress)

    def forward(self, predictions: DensePredictions, targets: Targets, progress: float) -> dict[str, LossTerm]:
        """Loss terms before the reduction over processes.

        Args:
            predictions: of this criterion's branch, float32.
            targets: of the batch.
            progress: share of the training that is done, 0..1.
        """
        targets, assignment = self.assign(predictions, targets, progress)
        return {name: term(predictions, targets, assignment, self.score) for name, term in self.losses.items()}
