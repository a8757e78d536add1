"""Which locations take part at all: a step before the candidates (DDQ, CVPR 2023, arXiv 2303.12776)."""

import torch

from la_det.geometry import agnostic_nms
from la_det.structures import DensePredictions, Queries, Score
from la_det.structures.no_wait import at_most


class DistinctQueries:
    """Dense distinct queries: of each level the locations of largest score s, and what one NMS leaves of all levels'.

    s is the largest probability of a location's classes. The NMS compares predicted boxes whatever their classes. A
    location of probability 0 is no query. Criteria and inference take the same rule.

    Args:
        topk: locations of each level.
        nms_threshold: IoU above which a better location removes another one; None for dense queries, without NMS.
    """

    def __init__(self, *, topk: int = 1000, nms_threshold: float | None = 0.7):
        self.topk = topk
        self.nms_threshold = nms_threshold

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, score: Score) -> Queries:
        """Level by level, in each by descending s."""
        priors, parts = predictions.priors, []
        for level, start in enumerate(priors.level_starts[:-1]):
            s = score.largest(predictions, level).flatten(2).transpose(1, 2).flatten(1)  # [N, priors of the level]
            s, index = s.topk(at_most(self.topk, s.shape[1]))
            parts.append((s, index + start))
        s, prior = (torch.cat(x, 1) for x in zip(*parts, strict=True))
        queries = Queries(prior, ~(s <= 0), priors.points.shape[0])  # NaN must not hide
        if self.nms_threshold is None:
            return queries
        boxes = predictions.boxes_at(queries.image.flatten(), prior.flatten()).view(*prior.shape, 4)
        return Queries(prior, agnostic_nms(boxes, s, queries.valid, self.nms_threshold), queries.num_priors)
