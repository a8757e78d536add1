"""Which (location, class) pairs of a level become candidate detections: the first step of inference.

A rule is called as `rule(p, quality, threshold, max_detections)`, for one level. It gets the probabilities p
[N, A, K, h, w], the sigmoids of the quality map [N, A, 1, h, w] (None without one), the threshold of p, and the number
of detections that are wanted at last. It returns p, with 0 for pairs that it rules out, and indices [N, k] into p's
flattened A K h w. Sizes may be symbols, where a graph is recorded.
"""

import torch
from torch import Tensor

from la_det.structures.no_wait import at_most


class TopPairs:
    """The `topk` best pairs.

    Args:
        topk: pairs of each level.
        cap: never more pairs than the level has locations, as in DeFCN.
        by_quality: the pairs above the threshold are ranked by p quality instead of p.
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
    """All pairs of the `topk` locations whose largest p quality is best (CondInst).

    Args:
        topk: locations of each level.
    """

    def __init__(self, *, topk: int = 1000):
        self.topk = topk

    def __call__(self, p: Tensor, quality: Tensor, threshold: float, max_detections: int):
        largest = (p * quality).amax(2, keepdim=True)
        flat = largest.flatten(1)
        index = flat.topk(at_most(self.topk, flat.shape[1])).indices
        p = p * torch.zeros_like(largest, dtype=torch.bool).flatten(1).scatter_(1, index, 1).view_as(largest)
        rank = torch.where(p > threshold, p * quality, -1).flatten(1)
        # More pairs of one level than there are detections at last cannot matter.
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
