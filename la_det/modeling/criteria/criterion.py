"""A criterion: how one branch is trained."""

from collections.abc import Iterable
from typing import Literal, Protocol

from torch import nn

from la_det.matchers import Matcher
from la_det.modeling.criteria.decision import Decision
from la_det.modeling.criteria.reduction import LossTerm
from la_det.steps.queries import DistinctQueries
from la_det.structures import DensePredictions, Score, Targets


class Term(Protocol):
    """One loss of a criterion."""

    def __call__(self, decision: Decision) -> LossTerm: ...


def loss_terms(
    criteria: Iterable["Criterion"], predictions: dict[str, DensePredictions], targets: Targets, progress: float
) -> dict[str, LossTerm]:
    """Loss terms of all criteria, before the reduction over processes.

    Args:
        predictions: name of each branch -> its predictions. A branch is removed after its last criterion, so that no
            copy of its maps stays in memory.
        targets, progress: see `Criterion.forward`.
    """
    criteria, terms = list(criteria), {}
    for i, criterion in enumerate(criteria):
        terms.update(criterion(predictions[criterion.branch], targets, progress))
        if all(later.branch != criterion.branch for later in criteria[i + 1 :]):
            del predictions[criterion.branch]
    return terms


class Criterion(nn.Module):
    """Assigns labels with a matcher, then evaluates loss terms on the assignment.

    Args:
        matcher: the label-assignment scheme; one that is `differentiable` sees the predictions with their gradient.
        losses: name of each loss -> its term.
        score: the classification probability that matcher and losses share.
        queries: chooses the locations that take part: the matcher may take no others, whose losses are left out. None:
            all.
        branch: name of the head's branch that is trained.
        ignored: what becomes of ignored ground truths.
            "background": the matcher does not see them.
            "dropped": the matcher sees them, and their priors take part in no loss.
            "counted": as "dropped", but the normalisers count their priors as positives.
    """

    def __init__(
        self,
        *,
        matcher: Matcher,
        losses: dict[str, Term],
        score: Score | None = None,
        queries: DistinctQueries | None = None,
        branch: str = "main",
        ignored: Literal["background", "dropped", "counted"] = "background",
    ):
        super().__init__()
        self.matcher = matcher
        self.losses = dict(losses)
        # Parameters of a term are trained, saved and moved with the model.
        self.learnt_losses = nn.ModuleDict({name: term for name, term in losses.items() if isinstance(term, nn.Module)})
        self.score = score or Score()
        self.queries = queries
        self.branch = branch
        self.ignored = ignored

    def assign(self, predictions: DensePredictions, targets: Targets, progress: float) -> Decision:
        """The matcher's decision about a batch, after ignored ground truths have been dealt with."""
        if self.ignored == "background":
            targets = targets.without_ignored()
        queries = None if self.queries is None else self.queries(predictions.detach(), self.score)
        seen = predictions if getattr(self.matcher, "differentiable", False) else predictions.detach(queries)
        assignment = self.matcher(seen, targets, score=self.score, progress=progress)
        if assignment.queries is None and queries is not None:
            assignment = assignment.among(queries)
        if self.ignored != "background" and targets.ignored is not None:
            mask = targets.ignored[assignment.pairs.gt]
            assignment = assignment.drop(mask, counted=self.ignored == "counted")
        return Decision(predictions, targets, assignment, self.score)

    def forward(self, predictions: DensePredictions, targets: Targets, progress: float) -> dict[str, LossTerm]:
        """Loss terms before the reduction over processes.

        Args:
            predictions: predictions of this criterion's branch, float32.
            targets: the batch's ground truths.
            progress: share of the training that is done, 0..1.
        """
        decision = self.assign(predictions, targets, progress)
        return {name: term(decision) for name, term in self.losses.items()}
