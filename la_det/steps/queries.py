"""Which locations take part at all: a step before the candidates (DDQ, CVPR 2023, arXiv 2303.12776)."""

import torch

from la_det.nms import agnostic_nms
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
        sizes = [h * w * priors.per_cell for h, w in priors.grid_sizes]
        levels = score.largest(predictions).split(sizes, 1)
        for s, start in zip(levels, priors.level_starts[:-1], strict=True):
            s, index = s.topk(at_most(self.topk, s.shape[1]))
            parts.append((s, index + start))
        s, prior = (torch.cat(x, 1) for x in zip(*parts, strict=True))
        image = torch.arange(prior.shape[0], device=prior.device).unsqueeze(1).expand_as(prior)
        boxes = predictions.boxes_at(image.flatten(), prior.flatten()).view(*prior.shape, 4)
        valid = ~(s <= 0)  # NaN must not hide
        if self.nms_threshold is not None:
            valid = agnostic_nms(boxes, s, valid, self.nms_threshold)  # host synchronisation, once per image
        return Queries(prior, boxes, valid, priors.points.shape[0])
