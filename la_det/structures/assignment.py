"""The result of label assignment: a sparse list of (prior, ground truth) pairs for the whole batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from la_det.structures.queries import Queries


@dataclass(frozen=True)
class Pairs:
    """P (prior, ground truth) pairs of a batch; every field is an int64 tensor [P].

    Attributes:
        image: index of the image in the batch.
        prior: index of the prior, 0..R-1.
        gt: index of the ground truth in `Targets`, 0..G-1.
    """

    image: Tensor
    prior: Tensor
    gt: Tensor

    def __len__(self) -> int:
        return len(self.gt)

    def location(self, num_priors: int) -> Tensor:
        """Index [P] of each pair's location, (image, prior), among all N R locations of the batch."""
        return self.image * num_priors + self.prior

    def __getitem__(self, index: Tensor) -> "Pairs":
        """The pairs at an index or mask [P] (a mask costs a host synchronisation)."""
        if index.dtype == torch.bool:
            index = index.nonzero().squeeze(1)
        # Several times faster than indexing by brackets.
        return Pairs(*(x.index_select(0, index) for x in (self.image, self.prior, self.gt)))

    @staticmethod
    def cat(parts: Sequence["Pairs"]) -> "Pairs":
        """All pairs of the parts, one after the other."""
        return Pairs(*(torch.cat([getattr(part, name) for part in parts]) for name in ("image", "prior", "gt")))


@dataclass(frozen=True)
class Negatives:
    """(prior, class) entries whose background weight is not 1.

    Attributes:
        image: [Q] int64, index of the image in the batch.
        prior: [Q] int64, 0..R-1.
        cls: [Q] int64, 0..K-1.
        weight: [Q] of the background loss.
    """

    image: Tensor
    prior: Tensor
    cls: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Assignment:
    """What a matcher decides. A (prior, class) that no field lists is background with weight 1.

    Attributes:
        pairs: the positives.
        weight: [P] weight of each positive; None means 1.
        target: [P] soft classification target of each positive; None means 1.
        negatives: (prior, class) entries whose background weight is not 1.
        dropped: (image [D], prior [D]) of priors that take part in no loss.
        classifies: [P] bool, for schemes whose ground truths can share a prior (OneNet's minimum rule): the one pair of
            each prior that gives it its class. None: all pairs. Only the focal loss reads it, so no other
            classification loss may be used then. Box losses and `num_positives` count every pair.
        queries: the priors that take part in the losses; all pairs' priors are among them. None: all priors.
        num_counted: number of dropped priors that still count as positives in the losses' normalisers (LLA).
    """

    pairs: Pairs
    weight: Tensor | None = None
    target: Tensor | None = None
    negatives: Negatives | None = None
    dropped: tuple[Tensor, Tensor] | None = None
    classifies: Tensor | None = None
    queries: Queries | None = None
    num_counted: int = 0

    per_pair: ClassVar[tuple[str, ...]] = ("weight", "target", "classifies")  # names of the fields of P rows

    @cached_property
    def num_positives(self) -> Tensor:
        """Number of positives with `num_counted`, scalar float32: the usual normaliser of losses."""
        return torch.full((), len(self.pairs) + self.num_counted, dtype=torch.float32, device=self.pairs.gt.device)

    @cached_property
    def target_sum(self) -> Tensor:
        """Scalar, of the soft targets: a normaliser of losses."""
        return self.target.sum()

    def drop(self, mask: Tensor, *, counted: bool) -> "Assignment":
        """The assignment after the pairs at a mask [P] have been moved to the dropped priors.

        Args:
            counted: whether the moved pairs stay part of `num_positives`.
        """
        kept, gone = (~mask).nonzero().squeeze(1), self.pairs[mask]  # two host synchronisations
        before = () if self.dropped is None else (self.dropped,)
        return self._keep(
            kept,
            dropped=tuple(torch.cat(x) for x in zip(*before, (gone.image, gone.prior), strict=True)),
            queries=None if self.queries is None else self.queries.without(gone.image, gone.prior),
            num_counted=self.num_counted + len(gone) * counted,
        )

    def among(self, queries: Queries) -> "Assignment":
        """Without the pairs whose priors are no queries, and with losses of queries alone."""
        if self.negatives is not None:
            raise ValueError("a matcher that weighs background entries cannot be restricted to queries")
        kept = (queries.at(self.pairs.image, self.pairs.prior) >= 0).nonzero().squeeze(1)  # host synchronisation
        return self._keep(kept, queries=queries)

    def _keep(self, index: Tensor, **changes: Any) -> "Assignment":
        """The pairs at an index [P']."""
        fields = {name: x[index] for name in self.per_pair if (x := getattr(self, name)) is not None}
        return replace(self, pairs=self.pairs[index], **fields, **changes)
