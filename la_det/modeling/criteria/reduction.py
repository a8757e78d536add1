"""One place where losses are normalised: a single packed all-reduce per step, on every rank, always."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor

from la_det.structures import on_device


@dataclass(frozen=True)
class LossTerm:
    """A loss before division: numerator / (max(normaliser, floor) + eps).

    Attributes:
        numerator: scalar with gradient, weight included, summed over this process's images.
        normaliser: scalar without gradient; averaged over processes where the scope is "world".
        scope: whether the official code averages the normaliser over processes.
        floor: lower bound of the normaliser, applied after averaging. With 0 (no bound) a normaliser of 0 means that
            there was nothing to sum: the loss is the numerator, 0 with gradient 0.
        eps: added to the normaliser.
    """

    numerator: Tensor
    normaliser: Tensor
    scope: Literal["world", "local"] = "world"
    floor: float = 1.0
    eps: float = 0.0


def reduce_losses(terms: dict[str, LossTerm]) -> dict[str, Tensor]:
    """Divides every term by its normaliser.

    All ranks must call this with the same terms, whatever they hold: a rank without ground truths joins too.
    """
    normalisers = torch.stack([term.normaliser.detach().float() for term in terms.values()])
    if comm.get_world_size() > 1:
        averaged = normalisers.clone()
        dist.all_reduce(averaged)
        averaged /= comm.get_world_size()
        world = on_device([term.scope == "world" for term in terms.values()], averaged.device)
        normalisers = torch.where(world, averaged, normalisers)
    losses = {}
    for (name, term), normaliser in zip(terms.items(), normalisers.unbind(), strict=True):
        divisor = normaliser.clamp(min=term.floor) + term.eps
        losses[name] = term.numerator / torch.where(divisor == 0, 1.0, divisor)
    return losses
