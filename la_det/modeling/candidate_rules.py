"""Which (location, class) pairs of a level become candidate detections: the first step of inference.

While a graph is recorded, sizes may be symbols.
"""

from typing import Protocol

import torch
from torch import Tensor

from la_det.structures.no_wait import at_most


class CandidateRule(Protocol):
    """What every rule is called with, for one level."""

    def __call__(
        self, p: Tensor, quality: Tensor | None, threshold: float, max_detections: int
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            p: [N, A, K, h, w] probabilities.
            quality: [N, A, 1, h, w] sigmoids of the quality map; None without such a map.
            threshold: a candidate has p > this.
            max_detections: final number of detections of an image.

        Returns:
            p, with 0 for pairs that are ruled out; and [N, k] int64 indices of the candidates in p's flattened A K h w.
        """


class TopPairs:
    """The `topk` best (location, class) pairs of each level.

    Args:
        topk: number of pairs of a level.
        cap: take at most as many pairs as the level has locations, as in DeFCN.
        by_quality: rank the pairs above the threshold by p quality instead of p.
    """

    def __init__(self, *, topk: int = 1000, cap: bool = True, by_quality: bool = False):
        self.topk = topk
        self.cap = cap
        self.by_quality = by_quality

    def __call__(
        self, p: Tensor, quality: Tensor | None, threshold: float, max_detections: int
    ) -> tuple[Tensor, Tensor]:
        _, a, k, h, w = p.shape
        rank = torch.where(p > threshold, p * quality, -1) if self.by_quality else p
        return p, rank.flatten(1).topk(at_most(self.topk, h * w * a if self.cap else h * w * a * k)).indices


class TopLocations:
    """All (location, class) pairs of each level's `topk` locations of largest p quality over the classes (CondInst).

    Args:
        topk: number of locations of a level.
    """

    def __init__(self, *, topk: int = 1000):
        self.topk = topk

    def __call__(self, p: Tensor, quality: Tensor, threshold: float, max_detections: int) -> tuple[Tensor, Tensor]:
        p = _at_best(p, (p * quality).amax(2, keepdim=True), self.topk)
        rank = torch.where(p > threshold, p * quality, -1).flatten(1)
        # More pairs of one level than the final number of detections cannot matter.
        return p, rank.topk(at_most(max(self.topk, max_detections), rank.shape[1])).indices


class TopClass:
    """The best class of every location (YOLOX)."""

    def __call__(
        self, p: Tensor, quality: Tensor | None, threshold: float, max_detections: int
    ) -> tuple[Tensor, Tensor]:
        _, _, k, h, w = p.shape
        cls = p.argmax(2).flatten(1)  # [N, A h w]
        location = torch.arange(cls.shape[1], device=cls.device)
        prior_of_cell = location.div(h * w, rounding_mode="floor")
        return p, location + (prior_of_cell * (k - 1) + cls) * (h * w)


class LocationsFirst:
    """All pairs of the `topk` locations whose largest p is best, of each level at most `pairs` (TOOD).

    The last bound changes nothing as long as NMS leaves as many of these pairs as there are detections at last, and
    none is left out that votes on their boxes.

    Args:
        topk: locations of each level.
        pairs: of each level, by default `4 topk`.
    """

    def __init__(self, *, topk: int = 1000, pairs: int | None = None):
        self.topk = topk
        self.pairs = pairs

    def __call__(
        self, p: Tensor, quality: Tensor | None, threshold: float, max_detections: int
    ) -> tuple[Tensor, Tensor]:
        p = _at_best(p, p.amax(2, keepdim=True), self.topk)
        flat = p.flatten(1)
        return p, flat.topk(at_most(self.pairs or 4 * self.topk, flat.shape[1])).indices


def _at_best(p: Tensor, rank: Tensor, topk: int) -> Tensor:
    """p [N, A, K, h, w], and 0 except at the `topk` locations of largest rank [N, A, 1, h, w]."""
    flat = rank.flatten(1)
    index = flat.topk(at_most(topk, flat.shape[1])).indices
    return p * torch.zeros_like(rank, dtype=torch.bool).flatten(1).scatter_(1, index, 1).view_as(rank)
