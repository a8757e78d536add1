"""Which (location, class) pairs of a level become candidate detections: the first step of inference.

A rule is called as `rule(p, quality, threshold, max_detections)`, for one level. It gets the probabilities p
[N, A, K, h, w], the sigmoids of the quality map [N, A, 1, h, w] (None without a quality map), the threshold of p, and
the final number of detections. It returns p, with 0 for pairs that it rules out, and indices [N, k] into p's flattened
A K h w. While a graph is recorded, sizes may be symbols.
"""

import torch
from torch import Tensor

from la_det.structures.no_wait import at_most


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

    def __call__(self, p: Tensor, quality: Tensor | None, threshold: float, max_detections: int):
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

    def __call__(self, p: Tensor, quality: Tensor, threshold: float, max_detections: int):
        p = _at_best(p, (p * quality).amax(2, keepdim=True), self.topk)
        rank = torch.where(p > threshold, p * quality, -1).flatten(1)
        # More pairs of one level than the final number of detections cannot matter.
        return p, rank.topk(at_most(max(self.topk, max_detections), rank.shape[1])).indices


class TopClass:
    """The best class of every location (YOLOX).

    Args:
        topk: locations of each level, those of largest p; None for all.
    """

    def __init__(self, *, topk: int | None = None):
        self.topk = topk

    def __call__(self, p: Tensor, quality: Tensor | None, threshold: float, max_detections: int):
        _, _, k, h, w = p.shape
        largest, cls = (x.flatten(1) for x in p.max(2))  # [N, A h w]
        count = largest.shape[1]
        location = largest.topk(count if self.topk is None else at_most(self.topk, count)).indices
        prior_of_cell = location.div(h * w, rounding_mode="floor")
        return p, location + (prior_of_cell * (k - 1) + cls.gather(1, location)) * (h * w)


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

    def __call__(self, p: Tensor, quality: Tensor | None, threshold: float, max_detections: int):
        p = _at_best(p, p.amax(2, keepdim=True), self.topk)
        flat = p.flatten(1)
        return p, flat.topk(at_most(self.pairs or 4 * self.topk, flat.shape[1])).indices


def _at_best(p: Tensor, rank: Tensor, topk: int) -> Tensor:
    """p [N, A, K, h, w], and 0 except at the `topk` locations of largest rank [N, A, 1, h, w]."""
    flat = rank.flatten(1)
    index = flat.topk(at_most(topk, flat.shape[1])).indices
    return p * torch.zeros_like(rank, dtype=torch.bool).flatten(1).scatter_(1, index, 1).view_as(rank)
