"""Inference of detectors that are trained on distinct queries (DDQ, CVPR 2023, arXiv 2303.12776)."""

from torch import Tensor

from la_det.modeling.candidate_rules import TopPairs
from la_det.modeling.inference import Candidates, DenseInference, clip_boxes
from la_det.steps.queries import DistinctQueries
from la_det.structures import DensePredictions
from la_det.structures.no_wait import at_most


class QueryInference(DenseInference):
    """The best (query, class) pairs of the distinct queries, by descending probability.

    The NMS of the queries, of all classes together, is part of the model: the training had it, too. It compares boxes
    that are not clipped yet. No other NMS follows.

    Args:
        queries: the rule of the training.
        topk: pairs that are candidates.
        options: of `DenseInference`.
    """

    def __init__(self, *, queries: DistinctQueries, topk: int = 1000, **options):
        super().__init__(candidates=TopPairs(topk=topk, cap=False), **options)
        self.queries = queries

    def candidates(self, predictions: DensePredictions, image_sizes: Tensor) -> Candidates:
        queries = self.queries(predictions, self.score)
        image, prior = queries.image.flatten(), queries.prior.flatten()
        p = predictions.at("logits", image, prior).sigmoid()
        if self.score.gate is not None:
            p = self.score.gated(p, predictions.at(self.score.gate, image, prior).sigmoid())
        k = p.shape[1]
        p = (p * queries.valid.flatten().unsqueeze(1)).view(queries.prior.shape[0], -1)  # [N, Q K]
        p, index = p.topk(at_most(self.candidate_rule.topk, p.shape[1]))
        query = index.div(k, rounding_mode="floor")
        prior = queries.prior.gather(1, query)
        boxes = queries.boxes.gather(1, query.unsqueeze(-1).expand(-1, -1, 4))
        if self.clip:
            boxes = clip_boxes(boxes, image_sizes, predictions.priors.box_offset)
        return Candidates(boxes, p, index - query * k, prior, p > self.score_threshold)
