"""Inference of detectors that are trained on distinct queries (DDQ, CVPR 2023, arXiv 2303.12776)."""

from torch import Tensor

from la_det.modeling.candidate_rules import TopPairs
from la_det.modeling.inference import Candidates, DenseInference, clip_boxes
from la_det.steps.queries import DistinctQueries
from la_det.structures import DensePredictions, Score


class QueryInference(DenseInference):
    """The best (query, class) pairs of the distinct queries, by descending probability.

    The NMS of the queries, of all classes together, is part of the model: the training had it, too. It compares boxes
    that are not clipped yet. No other NMS follows.

    Args:
        queries: the rule of the training.
        topk: pairs that are candidates.
        score, score_threshold, clip, nms_threshold, max_detections: of `DenseInference`.
    """

    def __init__(
        self,
        *,
        queries: DistinctQueries,
        topk: int = 1000,
        score: Score | None = None,
        score_threshold: float = 0.05,
        clip: bool = False,
        nms_threshold: float | None = None,
        max_detections: int = 100,
    ):
        super().__init__(
            score=score,
            candidates=TopPairs(topk=topk, cap=False),
            score_threshold=score_threshold,
            clip=clip,
            nms_threshold=nms_threshold,
            max_detections=max_detections,
        )
        self.queries = queries

    def candidates(self, predictions: DensePredictions, image_sizes: Tensor) -> Candidates:
        queries = self.queries(predictions, self.score)
        image, prior = queries.image.flatten(), queries.prior.flatten()
        p = predictions.at("logits", image, prior).sigmoid()
        if self.score.gate is not None:
            p = self.score.gated(p, predictions.at(self.score.gate, image, prior).sigmoid())
        k = p.shape[1]
        p = (p * queries.valid.flatten().unsqueeze(1)).view(*queries.prior.shape, k, 1, 1)  # a level of one cell
        p, index = self.candidate_rule(p, None, self.score_threshold, self.max_detections)
        p = p.flatten(1).gather(1, index)
        query = index.div(k, rounding_mode="floor")
        prior = queries.prior.gather(1, query)
        boxes = queries.boxes.gather(1, query.unsqueeze(-1).expand(-1, -1, 4))
        if self.clip:
            boxes = clip_boxes(boxes, image_sizes, predictions.priors.box_offset)
        return Candidates(boxes, p, index - query * k, prior, p > self.score_threshold)
