"""From dense predictions to detections, with or without NMS."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from detectron2.modeling import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor

from la_det.modeling.candidate_rules import CandidateRule, TopPairs
from la_det.nms import class_nms
from la_det.structures import DensePredictions, Score
from la_det.structures.no_wait import at_most


@dataclass(frozen=True)
class Candidates:
    """S places for candidate detections per image, sorted by level; a place that is not `valid` is empty.

    Attributes:
        boxes: [N, S, 4] XYXY pixels of the network input.
        scores: [N, S] final scores.
        classes: [N, S] int64, 0..K-1.
        priors: [N, S] int64, 0..R-1.
        valid: [N, S] bool.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    priors: Tensor
    valid: Tensor

    @property
    def counts(self) -> Tensor:
        """[N] number of valid entries of each image."""
        return self.valid.sum(1)

    def take(self, index: Tensor) -> "Candidates":
        """The entries at `index` [N, S']."""
        return Candidates(
            self.boxes.gather(1, index.unsqueeze(-1).expand(-1, -1, 4)),
            *(x.gather(1, index) for x in (self.scores, self.classes, self.priors, self.valid)),
        )


class DenseInference:
    """The inference rule of FCOS-style detectors.

    On each level, the candidates are (location, class) pairs whose probability exceeds the threshold. Over all levels,
    NMS (none for one-to-one schemes) is followed by the choice of the best `max_detections`, and by voting.

    Args:
        score: probability p that is ranked and thresholded.
        candidates: rule that chooses the candidates of a level, `TopPairs` by default; see
            `la_det.modeling.candidate_rules`.
        use_quality: whether the final score is (p sigma(quality))^quality_exponent instead of p.
        quality_exponent: see `use_quality`.
        score_threshold: a candidate has p > this.
        clip: whether boxes are clipped to the image before NMS.
        nms_threshold: IoU above which class-wise NMS removes a detection; None for no NMS.
        max_detections: largest number of detections per image.
        voting: `ScoreVoting`, which changes the boxes of detections after NMS; None for none.
    """

    def __init__(
        self,
        *,
        score: Score | None = None,
        candidates: CandidateRule | None = None,
        use_quality: bool = False,
        quality_exponent: float = 0.5,
        score_threshold: float = 0.05,
        clip: bool = False,
        nms_threshold: float | None = None,
        max_detections: int = 100,
        voting: Callable[[Candidates, Candidates], Candidates] | None = None,
    ):
        self.score = score or Score()
        self.use_quality = use_quality
        self.quality_exponent = quality_exponent
        self.candidate_rule = candidates or TopPairs()
        self.score_threshold = score_threshold
        self.clip = clip
        self.nms_threshold = nms_threshold
        self.max_detections = max_detections
        self.voting = voting

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, image_sizes: Tensor) -> Candidates:
        """At most `max_detections` detections per image, by descending score, in pixels of the network input.

        Args:
            predictions: predictions of the branch.
            image_sizes: [N, 2] (height, width) of each network input before padding.
        """
        return self.select(self.candidates(predictions, image_sizes), self.nms_threshold)

    def candidates(self, predictions: DensePredictions, image_sizes: Tensor) -> Candidates:
        """Thresholded candidates of all levels; `image_sizes` [N, 2] as in `__call__`."""
        levels = [self._level(predictions, level) for level in range(len(predictions.priors.grid_sizes))]
        p, prior, cls, raw_boxes, quality = (torch.cat(part, 1) for part in zip(*levels, strict=True))
        boxes = predictions.codec.decode(raw_boxes, predictions.priors, prior)
        if self.clip:
            boxes = clip_boxes(boxes, image_sizes, predictions.priors.box_offset)
        valid = p > self.score_threshold
        if self.use_quality:
            p = (p * quality.squeeze(-1).sigmoid()) ** self.quality_exponent
        return Candidates(boxes, p, cls, prior, valid)

    def _level(self, predictions: DensePredictions, level: int) -> tuple[Tensor, ...]:
        """A level's k candidates: probability, prior, class [N, k], box channels [N, k, 4], quality [N, k, 1 or 0]."""
        p = self.score.dense(predictions, level)
        _, a, k, h, w = p.shape
        qualities = predictions.maps["quality"][level] if "quality" in predictions.maps else None
        sigmoids = None if qualities is None else qualities.sigmoid().unsqueeze(2)
        p, index = self.candidate_rule(p, sigmoids, self.score_threshold, self.max_detections)
        p = p.flatten(1).gather(1, index)
        rest = index.div(h * w, rounding_mode="floor")
        cell = index - rest * (h * w)  # instead of %, for which the exporter needs a number
        of_cell = rest.div(k, rounding_mode="floor")
        prior = predictions.priors.level_starts[level] + cell * a + of_cell
        boxes = _channels(predictions.maps["boxes"][level], 4, of_cell, cell)
        quality = boxes[..., :0] if qualities is None else _channels(qualities, 1, of_cell, cell)
        return p, prior, rest % k, boxes, quality

    def select(self, candidates: Candidates, nms_threshold: float | None) -> Candidates:
        """The best `max_detections` after class-wise NMS (None: without NMS and voting); valid entries come first."""
        valid = candidates.valid
        if nms_threshold is not None:
            valid = class_nms(candidates.boxes, candidates.scores, candidates.classes, valid, nms_threshold)
        ranked = candidates.scores.masked_fill(~valid, -torch.inf)
        index = ranked.topk(at_most(self.max_detections, ranked.shape[1])).indices
        kept = replace(candidates.take(index), valid=valid.gather(1, index))
        return kept if self.voting is None or nms_threshold is None else self.voting(kept, candidates)


def _channels(level: Tensor, channels: int, of_cell: Tensor, cell: Tensor) -> Tensor:
    """Channels [N, k, C] of priors in a level's map [N, A C, h, w]: the `of_cell`-th prior [N, k] of `cell` [N, k]."""
    h, w = level.shape[2:]
    channel = of_cell.unsqueeze(-1) * channels + torch.arange(channels, device=cell.device)
    index = channel * (h * w) + cell.unsqueeze(-1)
    return level.flatten(1).gather(1, index.flatten(1)).unflatten(1, (-1, channels))


def clip_boxes(boxes: Tensor, image_sizes: Tensor, box_offset: int) -> Tensor:
    """Boxes [N, S, 4] clipped to their images; under the pixel-inclusive convention a box keeps at least one pixel."""
    corner = image_sizes.to(boxes).flip(1).unsqueeze(1)  # [N, 1, 2] (width, height)
    lower = boxes[..., :2].clamp(min=0).minimum(corner - box_offset)
    return torch.cat([lower, boxes[..., 2:].clamp(min=box_offset).minimum(corner)], -1)


def to_instances(
    detections: Candidates,
    image_sizes: Sequence[tuple[int, int]],
    output_sizes: Sequence[tuple[int, int]],
    masks: Tensor | None = None,
) -> list[Instances]:
    """Detectron2's `Instances` of each image, rescaled and clipped to the output size, without empty boxes.

    Besides Detectron2's fields they have `priors`, the prior of each detection. If `masks` are given, they also have
    `mask_probabilities`, the masks of the detections, for `paste_masks`.

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
