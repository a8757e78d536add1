"""From dense predictions to detections, with or without NMS."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.modeling import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor

from la_det.modeling.layers import class_nms
from la_det.structures import DensePredictions, Score


@dataclass(frozen=True)
class Candidates:
    """S candidate detections per image, sorted by level; entries that are not `valid` do not exist.

    Attributes:
        boxes: [N, S, 4] XYXY pixels of the network input.
        scores: [N, S].
        classes: [N, S] int64.
        priors: [N, S] int64.
        valid: [N, S] bool.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    priors: Tensor
    valid: Tensor

    @property
    def counts(self) -> Tensor:
        """[N] numbers of valid entries."""
        return self.valid.sum(1)

    def take(self, index: Tensor) -> "Candidates":
        """The entries at `index` [N, S']."""
        return Candidates(
            self.boxes.gather(1, index.unsqueeze(-1).expand(-1, -1, 4)),
            *(x.gather(1, index) for x in (self.scores, self.classes, self.priors, self.valid)),
        )


class DenseInference:
    """The inference rule of FCOS-style detectors.

    Per level: the `topk` best (location, class) pairs of those whose probability exceeds the threshold. Over all
    levels: NMS, or none for one-to-one schemes, and the best `max_detections`.

    Args:
        score: probability p that is ranked and thresholded.
        use_quality: the final score is (p sigma(quality))^quality_exponent instead of p.
        quality_exponent: see `use_quality`.
        rank_by_quality: `topk` ranks p sigma(quality) instead of p; the threshold stays one of p.
        score_threshold: pairs need p > this.
        topk: per level.
        cap_topk: never more pairs than the level has locations, as in DeFCN.
        topk_locations: of each level, only its `topk` best locations take part, by their largest p sigma(quality).
        clip: clip boxes to the image before NMS.
        nms_threshold: IoU above which class-wise NMS removes a detection; None for no NMS.
        max_detections: per image.
    """

    def __init__(
        self,
        *,
        score: Score | None = None,
        use_quality: bool = False,
        quality_exponent: float = 0.5,
        rank_by_quality: bool = False,
        score_threshold: float = 0.05,
        topk: int = 1000,
        cap_topk: bool = True,
        topk_locations: bool = False,
        clip: bool = False,
        nms_threshold: float | None = None,
        max_detections: int = 100,
    ):
        self.score = score or Score()
        self.use_quality = use_quality
        self.quality_exponent = quality_exponent
        self.rank_by_quality = rank_by_quality
        self.score_threshold = score_threshold
        self.topk = topk
        self.cap_topk = cap_topk
        self.topk_locations = topk_locations
        self.clip = clip
        self.nms_threshold = nms_threshold
        self.max_detections = max_detections

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, image_sizes: Tensor) -> Candidates:
        """At most `max_detections` per image, by descending score, in pixels of the network input.

        Args:
            predictions: of the branch.
            image_sizes: [N, 2] (height, width) of each network input before padding.
        """
        return self.select(self.candidates(predictions, image_sizes), self.nms_threshold)

    def candidates(self, predictions: DensePredictions, image_sizes: Tensor) -> Candidates:
        """Thresholded candidates of all levels; `image_sizes` [N, 2] as in `__call__`."""
        p, prior, cls = zip(
            *(self._level(predictions, level) for level in range(len(predictions.priors.grid_sizes))), strict=True
        )
        p, prior, cls = torch.cat(p, 1), torch.cat(prior, 1), torch.cat(cls, 1)
        image = torch.arange(p.shape[0], device=p.device).unsqueeze(-1).expand_as(prior).flatten()
        flat_prior = prior.flatten()
        boxes = predictions.boxes_at(image, flat_prior).view(*prior.shape, 4)
        if self.clip:
            boxes = _clip(boxes, image_sizes, predictions.priors.box_offset)
        valid = p > self.score_threshold
        if self.use_quality:
            quality = predictions.at("quality", image, flat_prior).view_as(p)
            p = (p * quality.sigmoid()) ** self.quality_exponent
        return Candidates(boxes, p, cls, prior, valid)

    def _level(self, predictions: DensePredictions, level: int) -> tuple[Tensor, Tensor, Tensor]:
        """Probability, prior and class of the best pairs of a level, each [N, k]."""
        p = self.score.dense(predictions, level)
        n, a, k, h, w = p.shape
        if self.topk_locations:
            p = p * self._best_locations(p * predictions.maps["quality"][level].sigmoid().unsqueeze(2))
        rank = p
        if self.rank_by_quality:
            quality = predictions.maps["quality"][level].sigmoid().unsqueeze(2)
            rank = torch.where(p > self.score_threshold, p * quality, -1)
        limit = h * w * a if self.cap_topk else h * w * a * k
        # All pairs of the best locations are candidates; more than the final number of one level cannot matter.
        topk = max(self.topk, self.max_detections) if self.topk_locations else self.topk
        index = rank.flatten(1).topk(_at_most(topk, limit)).indices
        p = p.flatten(1).gather(1, index)
        rest = index.div(h * w, rounding_mode="floor")
        cell = index - rest * (h * w)  # not %, whose exporter wants a number
        prior = predictions.priors.level_starts[level] + cell * a + rest.div(k, rounding_mode="floor")
        return p, prior, rest % k

    def _best_locations(self, p: Tensor) -> Tensor:
        """[N, A, 1, h, w] bool, the `topk` locations of largest p [N, A, K, h, w]."""
        largest = p.amax(2, keepdim=True)
        flat = largest.flatten(1)
        index = flat.topk(_at_most(self.topk, flat.shape[1])).indices
        return torch.zeros_like(largest, dtype=torch.bool).flatten(1).scatter_(1, index, 1).view_as(largest)

    def select(self, candidates: Candidates, nms_threshold: float | None) -> Candidates:
        """Class-wise NMS, unless the threshold is None, and the best `max_detections`; valid entries come first."""
        valid = candidates.valid
        if nms_threshold is not None:
            valid = class_nms(candidates.boxes, candidates.scores, candidates.classes, valid, nms_threshold)
        ranked = candidates.scores.masked_fill(~valid, -torch.inf)
        index = ranked.topk(_at_most(self.max_detections, ranked.shape[1])).indices
        kept = candidates.take(index)
        return Candidates(kept.boxes, kept.scores, kept.classes, kept.priors, valid.gather(1, index))


def _at_most(limit: int, count: int | Tensor) -> int | Tensor:
    """min(limit, count), also where a graph is recorded and sizes are symbols (torch.export) or tensors (tracing)."""
    return count.clamp(max=limit) if isinstance(count, Tensor) else torch.sym_min(limit, count)


def _clip(boxes: Tensor, image_sizes: Tensor, box_offset: int) -> Tensor:
    """Boxes [N, S, 4] moved into their images; in the pixel-inclusive convention they keep one pixel (`Priors`)."""
    corner = image_sizes.to(boxes).flip(1).unsqueeze(1)  # [N, 1, 2] (width, height)
    lower = boxes[..., :2].clamp(min=0).minimum(corner - box_offset)
    return torch.cat([lower, boxes[..., 2:].clamp(min=box_offset).minimum(corner)], -1)


def to_instances(
    detections: Candidates,
    image_sizes: Sequence[tuple[int, int]],
    output_sizes: Sequence[tuple[int, int]],
    masks: Tensor | None = None,
) -> list[Instances]:
    """Detectron2's `Instances` per image, rescaled to the output size and clipped to it, empty boxes removed.

    Beside Detectron2's fields they have `priors`, the prior of each detection, and `mask_probabilities`, its part of
    `masks`, for `paste_masks`.

    Args:
        detections: valid entries first, in pixels of the network input.
        image_sizes: (height, width) of each network input before padding.
        output_sizes: (height, width) of each wanted output.
        masks: [N, D, h, w] of the detections, from `MaskInference`.
    """
    results = []
    counts = detections.counts.tolist()  # host synchronisation: the numbers of detections
    for i, (count, image_size, output_size) in enumerate(zip(counts, image_sizes, output_sizes, strict=True)):
        instances = Instances(tuple(image_size))
        # A copy: detector_postprocess scales the boxes in place.
        instances.pred_boxes = Boxes(detections.boxes[i, :count].clone())
        instances.scores = detections.scores[i, :count]
        instances.pred_classes = detections.classes[i, :count]
        instances.priors = detections.priors[i, :count]
        if masks is not None:
            instances.mask_probabilities = masks[i, :count]
        results.append(detector_postprocess(instances, *output_size))
    return results
