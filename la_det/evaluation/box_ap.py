"""COCO's box AP alone, from arrays, in a small part of the time of a whole COCO evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import BoxMode
from detectron2.utils import comm

from .greedy_matching import match_greedily, pairs_of_equal_keys

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Boxes:
    """n boxes of many images.

    Attributes:
        image: [n] index of the image.
        category: [n] index of the category.
        boxes: [n, 4] XYWH pixels, float64.
        scores: [n] scores, for detections.
        crowd: [n] bool, for ground truths: whether the box is a region in which detections are ignored.
    """

    image: np.ndarray
    category: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray | None = None
    crowd: np.ndarray | None = None


class BoxAPEvaluator(DatasetEvaluator):
    """Evaluator with the task `bbox` and its metric `AP`, with the value of `COCOEvaluator`."""

    def __init__(
        self, truth: Boxes | None, number_of: Callable[[Hashable], int], max_detections: int, distributed: bool
    ) -> None:
        """
        Args:
            truth: ground truths, whose categories are the model's classes. None: there are no annotations, and no
                results.
            number_of: function from an `image_id` to the index of the image in `truth`.
            max_detections: number of the best detections that count, for each image and category.
            distributed: whether the detections of all processes are gathered.
        """
        self._truth = truth
        self._number_of = number_of
        self._max_detections = max_detections
        self._distributed = distributed
        self.reset()

    def reset(self) -> None:
        self._found: list[tuple[np.ndarray, ...]] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for image, output in zip(inputs, outputs, strict=True):
            instances = output["instances"].to("cpu")
            number = np.full(len(instances), self._number_of(image["image_id"]))
            boxes = instances.pred_boxes.tensor.numpy()
            self._found.append((number, instances.pred_classes.numpy(), boxes, instances.scores.numpy()))

    def evaluate(self) -> dict[str, dict[str, float]]:
        found = self._found
        if self._distributed:
            gathered = comm.gather(found, dst=0)
            if not comm.is_main_process():
                return {}
            found = [image for part in gathered for image in part]
        if not found or self._truth is None:
            return {}
        image, classes, boxes, scores = (np.concatenate(x) for x in zip(*found, strict=True))
        detections = Boxes(
            image,
            classes,
            BoxMode.convert(boxes, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS).astype(np.float64),
            scores.astype(np.float64),
        )
        return {"bbox": {"AP": 100 * box_ap(detections, self._truth, self._max_detections)}}


def box_ap(detections: Boxes, truth: Boxes, max_detections: int) -> float:
    """COCO's AP: mean precision over 101 recalls, 10 IoU thresholds and all categories with objects; NaN without any.

    The rules are those of pycocotools (`COCOeval.evaluateImg` and `accumulate`) for objects of all sizes.
    """
    num_categories = 1 + max(truth.category.max(initial=0), detections.category.max(initial=0))
    turn = np.lexsort((detections.image, -detections.scores))
    key = (detections.image * num_categories + detections.category)[turn]
    few = _rank(key) < max_detections
    turn, key = turn[few], key[few]
    det, gt = pairs_of_equal_keys(key, truth.image * num_categories + truth.category)
    iou = _iou(detections.boxes[turn[det]], truth.boxes[gt], truth.crowd[gt])

    num_objects = np.bincount(truth.category[~truth.crowd], minlength=num_categories)
    category = detections.category[turn]
    of_category = np.split(category.argsort(kind="stable"), np.bincount(category, minlength=num_categories).cumsum())
    precisions = []
    for threshold in IOU_THRESHOLDS:
        overlapping = iou >= threshold
        det, gt, iou = det[overlapping], gt[overlapping], iou[overlapping]
        object_ = ~truth.crowd[gt]
        # Negative, because pycocotools takes the last one of equal IoUs.
        matched = match_greedily(det[object_], -1 - gt[object_], iou[object_], len(turn), len(truth.image))
        counted = np.ones(len(turn), dtype=bool)
        counted[det[~object_]] = False
        counted |= matched
        for c in num_objects.nonzero()[0]:
            ranked = of_category[c]
            precisions.append(_mean_precision(matched[ranked[counted[ranked]]], num_objects[c]))
    return float(np.mean(precisions)) if precisions else math.nan


def _mean_precision(correct: np.ndarray, num_objects: int) -> float:
    """Mean precision over RECALL_THRESHOLDS of detections by descending score, each correct or not."""
    found = correct.cumsum()
    precision = found / np.arange(1, len(correct) + 1)
    highest = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)  # at this recall or a larger one
    return highest[np.searchsorted(found / num_objects, RECALL_THRESHOLDS)].mean()


def _rank(key: np.ndarray) -> np.ndarray:
    """[n] number of equal keys before each key."""
    order = key.argsort(kind="stable")
    ordered = key[order]
    rank = np.empty_like(order)
    rank[order] = np.arange(len(key)) - np.searchsorted(ordered, ordered)
    return rank


def _iou(detections: np.ndarray, truths: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """[P] IoU of XYWH boxes; for a crowd region, the share of the detection that lies in the region."""
    ends = np.minimum(detections[:, :2] + detections[:, 2:], truths[:, :2] + truths[:, 2:])
    intersection = (ends - np.maximum(detections[:, :2], truths[:, :2])).clip(min=0).prod(1)
    area = detections[:, 2:].prod(1)
    return intersection / np.where(crowd, area, area + truths[:, 2:].prod(1) - intersection)
