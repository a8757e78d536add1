"""Normalisation of all losses, by one packed all-reduce per step that every rank always joins."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor

from la_det.structures import constant


@dataclass(frozen=True)
class LossTerm:
    """A loss before division: weight numerator / (max(normaliser, floor) + eps).

    Attributes:
        numerator: scalar with gradient, summed over this process's images.
        normaliser: scalar without gradient.
        weight: factor of the loss.
        scope: where the normaliser is computed, as in the official code.
            "world": averaged over processes.
            "local": each process has its own.
        floor: lower bound of the normaliser, applied after averaging. If floor, eps and normaliser are 0, the loss is
            the numerator: for a sum over pairs, 0 with gradient 0.
        eps: added to the normaliser.
    """

    numerator: Tensor
    normaliser: Tensor
    weight: float = 1.0
    scope: Literal["world", "local"] = "world"
    floor: float = 1.0
    eps: float = 0.0

    @property
    def is_world(self) -> bool:
        """Whether the normaliser is averaged over processes."""
        return self.scope == "world"


def reduce_losses(terms: dict[str, LossTerm]) -> dict[str, Tensor]:
    """Divides every term by its normaliser.

    All ranks must call this function with the same names of terms, also a rank without ground truths.
    """
    device = next(iter(terms.values())).normaliser.device
    weights, floors, eps, is_world = (
        constant(tuple(getattr(term, name) for term in terms.values()), device, dtype)
        for name, dtype in (
            ("weight", torch.float32),
            ("floor", torch.float32),
            ("eps", torch.float32),
            ("is_world", torch.bool),
        )
    )
    normalisers = torch.stack([term.normaliser.detach().float() for term in terms.values()])
    if comm.get_world_size() > 1:
        averaged = normalisers.clone()
        dist.all_reduce(averaged)
        averaged /= comm.get_world_size()
        normalisers = torch.where(is_world, averaged, normalisers)
    divisors = normalisers.maximum(floors) + eps
    if any(term.floor == term.eps == 0 for term in terms.values()):
        divisors = divisors.masked_fill(divisors == 0, 1)
    losses = torch.stack([term.numerator for term in terms.values()]) * (weights / divisors)
    return dict(zip(terms, losses.unbind(), strict=True))
