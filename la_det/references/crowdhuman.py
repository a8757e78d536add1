"""The rules of CrowdHuman's evaluation as plain loops over images, detections and ground truths.

The straightforward version: la_det.evaluation.crowdhuman must return the same, and be at least 10 times faster.
Overlaps are computed once per image and used by all metrics.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from scipy.optimize import linear_sum_assignment

Box = tuple[float, float, float, float]  # left, top, right, bottom

FPPI_MR2 = (0.0100, 0.0178, 0.03160, 0.0562, 0.1000, 0.1778, 0.3162, 0.5623, 1.000)
FPPI_MR4 = (0.0001, 0.0003, 0.001, 0.0032, 0.01, 0.0316, 0.1, 0.3162, 1)


class Detections(Protocol):
    """One image's detections: `boxes` [D, 4] XYWH in pixels, `scores` [D]."""

    @property
    def boxes(self) -> np.ndarray: ...
    @property
    def scores(self) -> np.ndarray: ...


class GroundTruth(Protocol):
    """One image's annotation: `boxes` [G, 4] XYWH in pixels, `ignored` [G] bool, `size` (height, width)."""

    @property
    def image_id(self) -> Hashable: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def boxes(self) -> np.ndarray: ...
    @property
    def ignored(self) -> np.ndarray: ...


def clip(box: Sequence[float], height: int, width: int) -> Box:
    x, y, w, h = box
    return (
        min(max(x, 0), width - 1),
        min(max(y, 0), height - 1),
        max(min(x + w, width), 0),
        max(min(y + h, height), 0),
    )


def area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def intersection(a: Box, b: Box) -> float:
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    return w * h if w > 0 and h > 0 else 0.0


def iou(det: Box, gt: Box) -> float:
    common = intersection(det, gt)
    return common / (area(det) + area(gt) - common + 1e-6)


def lies_in(box: Box, ignored: Sequence[Box]) -> bool:
    return any(intersection(box, region) / (area(box) + 1e-6) > 0.5 for region in ignored)


class Image:
    def __init__(self, gt: GroundTruth, dets: Detections | None):
        height, width = gt.size
        boxes = [clip(box, height, width) for box in gt.boxes.tolist()]
        self.gts = [box for box, ignored in zip(boxes, gt.ignored, strict=True) if not ignored]
        ignored_boxes = [box for box, ignored in zip(boxes, gt.ignored, strict=True) if ignored]
        self.dets = [] if dets is None else [clip(box, height, width) for box in dets.boxes.tolist()]
        self.scores = [] if dets is None else dets.scores.tolist()
        self.ious = [[iou(det, gt) for gt in self.gts] for det in self.dets]
        self.det_excused = [lies_in(det, ignored_boxes) for det in self.dets]
        self.gt_excused = [lies_in(gt, ignored_boxes) for gt in self.gts]

    def flags(self) -> list[int]:
        """Per detection in file order: 1 TP, 0 FP, -1 discarded."""
        flags = [0] * len(self.dets)
        taken = [False] * len(self.gts)
        for d in self.by_score():
            best, best_iou = None, 0.5
            for g, value in enumerate(self.ious[d]):
                if not taken[g] and value > best_iou:
                    best, best_iou = g, value
            if best is not None:
                taken[best] = True
                flags[d] = 1
            elif self.det_excused[d]:
                flags[d] = -1
        return flags

    def by_score(self) -> list[int]:
        return sorted(range(len(self.scores)), key=lambda d: -self.scores[d])

    def jaccard_counts(self, threshold: float) -> tuple[int, int, int]:
        """k, m, n of the detections above a score threshold."""
        kept = [d for d, score in enumerate(self.scores) if score > threshold]
        weight = np.zeros((len(self.gts), len(kept)))
        for column, d in enumerate(kept):
            for g, value in enumerate(self.ious[d]):
                if value > 0.5:
                    weight[g, column] = value
        pairs = [(g, c) for g, c in zip(*linear_sum_assignment(weight, maximize=True), strict=True) if weight[g, c] > 0]
        matched_gts, matched_dets = {g for g, _ in pairs}, {kept[c] for _, c in pairs}
        n = sum(1 for d in kept if d in matched_dets or not self.det_excused[d])
        m = sum(1 for g in range(len(self.gts)) if g in matched_gts or not self.gt_excused[g])
        return len(pairs), m, n


def miss_rates(points: Sequence[tuple[float, float]], references: Sequence[float]) -> list[float]:
    rates = []
    for reference in references:
        reached = [miss for miss, fppi in points if fppi >= reference]
        rates.append(reached[0] if reached else points[-1][0])
    return rates


def log_average(rates: Sequence[float]) -> float:
    if any(math.isnan(rate) for rate in rates):
        return math.nan
    if min(rates) == 0:
        return 0.0
    return math.exp(sum(math.log(rate) for rate in rates) / len(rates))


def evaluate(ground_truths: Sequence[GroundTruth], detections: Mapping[Any, Detections]) -> dict[str, Any]:
    """All that CrowdHumanResult has, as a dict; `jaccard` maps a threshold to (JI, k, m, n)."""
    images = [Image(gt, detections.get(gt.image_id)) for gt in ground_truths]
    flags = [image.flags() for image in images]
    num_gt = sum(len(image.gts) for image in images)

    ranked = [
        (image.scores[d], hits[d])
        for image, hits in zip(images, flags, strict=True)
        for d in image.by_score()
        if hits[d] != -1
    ]
    ranked.sort(key=lambda entry: -entry[0])
    tp = fp = 0
    curve, points = [], []
    for _, hit in ranked:
        tp, fp = tp + hit, fp + (1 - hit)
        recall = tp / num_gt if num_gt else math.nan
        curve.append((recall, tp / (tp + fp)))
        points.append((1 - recall, fp / len(images)))
    if not num_gt:
        curve, points = [(math.nan, math.nan)] * 2, [(math.nan, 0.0)]
    elif not curve:
        curve, points = [(0.0, 0.0)], [(1.0, 0.0)]
    ap = 0.0
    for (r0, p0), (r1, p1) in zip(curve[:-1], curve[1:], strict=True):
        ap += (r1 - r0) * (p1 + p0) / 2

    jaccard = {}
    for step in range(10):
        counts = [image.jaccard_counts(step / 10) for image in images]
        compared = sum(1 for _, m, n in counts if m or n)
        ratio = sum(k / (m + n - k + 1e-6) for k, m, n in counts)
        k, m, n = (sum(column) for column in zip(*counts, strict=True))
        jaccard[step / 10] = (ratio / compared if compared else math.nan, k, m, n)

    rates = miss_rates(points, FPPI_MR2)
    return {
        "AP": ap,
        "mMR": log_average(rates),
        "Recall": curve[-1][0],
        "JI": max((ji for ji, *_ in jaccard.values() if not math.isnan(ji)), default=math.nan),
        "mMR_minus4": log_average(miss_rates(points, FPPI_MR4)),
        "miss_rates": rates,
        "jaccard": jaccard,
        "flags": {
            gt.image_id: hits for gt, hits in zip(ground_truths, flags, strict=True) if gt.image_id in detections
        },
        "num_images": len(images),
        "num_gt": num_gt,
        "num_ignored_gt": sum(int(gt.ignored.sum()) for gt in ground_truths),
    }
