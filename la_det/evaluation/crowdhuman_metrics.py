"""AP, mMR (MR^-2), Recall and JI of CrowdHuman, equal to the numbers of its official evaluators.

AP, mMR and Recall are those of the evaluator in cvpods, o2f and DATE; JI is CrowdDet's (arXiv 2003.09163). They differ
from COCO's metrics: AP is the plain area under the raw precision-recall points.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.progress import track
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from la_det.errors import UserError

from .greedy_matching import match_greedily

MIN_OVERLAP = 0.5  # an overlap must be larger
EPS = 1e-6  # added to the denominator of both overlaps and of the Jaccard ratio
FPPI_MR2 = (0.01, 0.0178, 0.0316, 0.0562, 0.1, 0.1778, 0.3162, 0.5623, 1.0)
FPPI_MR4 = (0.0001, 0.0003, 0.001, 0.0032, 0.01, 0.0316, 0.1, 0.3162, 1.0)
JI_SCORE_THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

TRUE_POSITIVE, FALSE_POSITIVE, DISCARDED = 1, 0, -1


@dataclass(frozen=True)
class GroundTruth:
    """One image's annotation: `boxes` [G, 4] XYWH in pixels, `ignored` [G] bool, `size` (height, width)."""

    image_id: Hashable
    size: tuple[int, int]
    boxes: np.ndarray
    ignored: np.ndarray


@dataclass(frozen=True)
class Detections:
    """One image's detections in the order of their file: `boxes` [D, 4] XYWH in pixels, `scores` [D]."""

    boxes: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class JaccardIndex:
    """JI at one score threshold, with the pairs k, ground truths m and detections n summed over the images."""

    JI: float
    k: int
    m: int
    n: int


@dataclass(frozen=True)
class CrowdHumanResult:
    """Metrics as fractions. Without any counted ground truth, AP, mMR and Recall are NaN.

    `miss_rates` [9] are those at :data:`FPPI_MR2`, which mMR averages. `jaccard` maps a score threshold to its
    :class:`JaccardIndex`; `JI` is the largest of them. `flags` maps the ID of each image with a detection record to
    [D] int8 in the record's order: 1 true positive, 0 false positive, -1 discarded on an ignored box.
    """

    AP: float
    mMR: float
    Recall: float
    JI: float
    mMR_minus4: float
    miss_rates: np.ndarray
    jaccard: dict[float, JaccardIndex]
    flags: dict[Hashable, np.ndarray]
    num_images: int
    num_gt: int
    num_ignored_gt: int


def evaluate_crowdhuman(
    ground_truths: Sequence[GroundTruth], detections: Mapping[Hashable, Detections], progress: bool = False
) -> CrowdHumanResult:
    """Evaluate the detections of a data set.

    Args:
        ground_truths: one per image, in the order of the annotation file, which decides between equal scores.
        detections: image ID -> detections; an image may be missing.
        progress: whether to show a progress line.

    Raises:
        UserError: there are detections of an unknown image, or a box or score is not finite.
    """
    if not ground_truths:
        raise UserError("no image to evaluate on: the annotations are empty")
    _check(ground_truths, detections)
    overlaps = _find_overlaps(ground_truths, detections, progress)
    matched = match_greedily(
        overlaps.pair_det, overlaps.pair_gt, overlaps.pair_iou, len(overlaps.det_image), len(overlaps.gt_image)
    )
    flags = np.where(matched, TRUE_POSITIVE, np.where(overlaps.det_in_ignored, DISCARDED, FALSE_POSITIVE))

    recall, precision, fppi = _curve(flags, overlaps)
    miss_rates = _miss_rates(recall, fppi, FPPI_MR2)
    jaccard = {t: _jaccard_index(overlaps, t) for t in JI_SCORE_THRESHOLDS}
    return CrowdHumanResult(
        AP=_average_precision(recall, precision),
        mMR=_log_average(miss_rates),
        Recall=float(recall[-1]),
        JI=max((j.JI for j in jaccard.values() if not np.isnan(j.JI)), default=float("nan")),
        mMR_minus4=_log_average(_miss_rates(recall, fppi, FPPI_MR4)),
        miss_rates=miss_rates,
        jaccard=jaccard,
        flags=_flags_by_image(flags, overlaps, ground_truths, detections),
        num_images=len(ground_truths),
        num_gt=len(overlaps.gt_image),
        num_ignored_gt=sum(int(gt.ignored.sum()) for gt in ground_truths),
    )


@dataclass(frozen=True)
class _Overlaps:
    """What matching needs of a whole data set: D detections, G counted ground truths, P pairs with IoU > 0.5.

    Detections are ordered by image, then by descending score (stable). Ground truths are ordered by image, then as in
    the annotation. Images are in the order of the annotations.
    """

    num_images: int
    det_image: np.ndarray  # [D]
    det_score: np.ndarray  # [D]
    det_position: np.ndarray  # [D] place in the image's record
    det_in_ignored: np.ndarray  # [D] more than half inside an ignored box
    gt_image: np.ndarray  # [G]
    gt_in_ignored: np.ndarray  # [G] more than half inside an ignored box
    pair_det: np.ndarray  # [P]; the pairs are sorted by ground truth, then by descending IoU
    pair_gt: np.ndarray  # [P]
    pair_iou: np.ndarray  # [P]
    pair_component: np.ndarray  # [P] number of the connected component of the graph of all pairs


def _check(ground_truths: Sequence[GroundTruth], detections: Mapping[Hashable, Detections]) -> None:
    unknown = detections.keys() - {gt.image_id for gt in ground_truths}
    if unknown:
        raise UserError(
            f"detections of {len(unknown)} images that the annotations do not have, one is {next(iter(unknown))!r}: "
            "evaluate against the annotation file of the images that were detected on"
        )
    for image_id, dets in detections.items():
        if not (np.isfinite(dets.boxes).all() and np.isfinite(dets.scores).all()):
            raise UserError(f"image {image_id!r} has a detection whose box or score is not finite")


def _find_overlaps(
    ground_truths: Sequence[GroundTruth], detections: Mapping[Hashable, Detections], progress: bool
) -> _Overlaps:
    no_detections = Detections(np.zeros((0, 4)), np.zeros(0))
    columns = []
    num_dets = num_gts = 0
    images = track(ground_truths, "CrowdHuman evaluation", console=Console(stderr=True), disable=not progress)
    for image, gt in enumerate(images):
        dets = detections.get(gt.image_id, no_detections)
        scores = np.asarray(dets.scores, dtype=np.float64)
        position = np.argsort(-scores, kind="stable")
        det_boxes = _clipped_xyxy(dets.boxes[position], gt.size)
        gt_boxes = _clipped_xyxy(gt.boxes, gt.size)
        counted, ignored = gt_boxes[:, ~gt.ignored], gt_boxes[:, gt.ignored]
        pair_gt, pair_det, pair_iou = _pairs(counted, det_boxes)
        columns.append(
            (
                np.full(len(position), image),
                scores[position],
                position,
                _mostly_inside(det_boxes, ignored),
                np.full(counted.shape[1], image),
                _mostly_inside(counted, ignored),
                pair_det + num_dets,
                pair_gt + num_gts,
                pair_iou,
            )
        )
        num_dets += len(position)
        num_gts += counted.shape[1]
    *per_box, pair_det, pair_gt, pair_iou = (np.concatenate(column) for column in zip(*columns, strict=True))
    order = np.lexsort((pair_det, -pair_iou, pair_gt))
    pair_det, pair_gt, pair_iou = pair_det[order], pair_gt[order], pair_iou[order]
    component = _components(pair_det, pair_gt, num_dets, num_gts)
    return _Overlaps(len(ground_truths), *per_box, pair_det, pair_gt, pair_iou, component)


def _components(pair_det: np.ndarray, pair_gt: np.ndarray, num_dets: int, num_gts: int) -> np.ndarray:
    """[P] connected component of each pair in the bipartite graph of detections and ground truths."""
    num_nodes = num_dets + num_gts
    edges = (np.ones(len(pair_det), dtype=bool), (pair_det, num_dets + pair_gt))
    _, label = connected_components(coo_array(edges, shape=(num_nodes, num_nodes)), directed=False)
    return label[pair_det]


def _clipped_xyxy(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[B, 4] XYWH -> [4, B] XYXY; the official clipping keeps a pixel of a box right of or below the image."""
    height, width = size
    x, y, w, h = boxes.T.astype(np.float64)
    return np.stack((x.clip(0, width - 1), y.clip(0, height - 1), (x + w).clip(0, width), (y + h).clip(0, height)))


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[2] - boxes[0]) * (boxes[3] - boxes[1])


def _intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Areas [A, B] of the intersections of boxes [4, A] and [4, B] XYXY."""
    a = a[..., None]
    width = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0])
    height = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1])
    return width.clip(min=0) * height.clip(min=0)


def _pairs(gts: np.ndarray, dets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ground truth, detection and IoU of the pairs whose IoU exceeds MIN_OVERLAP."""
    intersection = _intersection(gts, dets)
    iou = intersection / (_area(dets) + _area(gts)[:, None] - intersection + EPS)
    gt, det = np.nonzero(iou > MIN_OVERLAP)
    return gt, det, iou[gt, det]


def _mostly_inside(boxes: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """[B] bool, whether more than half of the box's area lies in one ignored box."""
    return (_intersection(ignored, boxes) / (_area(boxes) + EPS) > MIN_OVERLAP).any(axis=0)


def _curve(flags: np.ndarray, overlaps: _Overlaps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recall, precision and false positives per image after each counted detection, by descending score.

    If no detection counts, the curve has one point, at recall 0.
    """
    by_score = np.argsort(-overlaps.det_score, kind="stable")
    hits = flags[by_score]
    hits = hits[hits != DISCARDED]
    if not hits.size:
        hits = np.zeros(1, dtype=int)
    tp, fp = np.cumsum(hits == TRUE_POSITIVE), np.cumsum(hits == FALSE_POSITIVE)
    num_gts = len(overlaps.gt_image)
    recall = tp / num_gts if num_gts else np.full(len(tp), np.nan)
    return recall, tp / (tp + fp), fp / overlaps.num_images


def _average_precision(recall: np.ndarray, precision: np.ndarray) -> float:
    """Area of the trapezoids between the points. As officially, the area before the first point is left out."""
    if np.isnan(recall[-1]):
        return float("nan")
    return float(np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2))


def _miss_rates(recall: np.ndarray, fppi: np.ndarray, references: Sequence[float]) -> np.ndarray:
    """[9] miss rate at the first point whose FPPI reaches the reference, or at the last point if no point does."""
    first = np.searchsorted(fppi, references)
    return 1 - recall[first.clip(max=len(fppi) - 1)]


def _log_average(miss_rates: np.ndarray) -> float:
    with np.errstate(divide="ignore"):  # a miss rate of 0 makes the mean -inf and the result 0
        return float(np.exp(np.mean(np.log(miss_rates))))


def _jaccard_index(overlaps: _Overlaps, threshold: float) -> JaccardIndex:
    """CrowdDet's JI of the detections with a score above `threshold`; NaN if no image has anything to compare."""
    kept = overlaps.det_score > threshold
    matched_det, matched_gt = _max_weight_matching(overlaps, kept)
    # A box that lies in an ignored box counts only if it is matched.
    n_mask = kept & ~overlaps.det_in_ignored
    n_mask[matched_det] = True
    m_mask = ~overlaps.gt_in_ignored
    m_mask[matched_gt] = True
    k, m, n = (
        np.bincount(images, minlength=overlaps.num_images)
        for images in (overlaps.gt_image[matched_gt], overlaps.gt_image[m_mask], overlaps.det_image[n_mask])
    )
    num_compared = np.count_nonzero((m != 0) | (n != 0))
    index = float(np.sum(k / (m + n - k + EPS)) / num_compared) if num_compared else float("nan")
    return JaccardIndex(index, int(k.sum()), int(m.sum()), int(n.sum()))


def _max_weight_matching(overlaps: _Overlaps, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One-to-one matching of `kept` detections and ground truths with the largest sum of IoUs.

    If all ground truths of a connected component have different best detections, these are the optimum. Only other
    components, of which there are few, need an assignment solver.
    """
    pairs = np.flatnonzero(kept[overlaps.pair_det])
    gt, det, component = overlaps.pair_gt[pairs], overlaps.pair_det[pairs], overlaps.pair_component[pairs]
    best = np.flatnonzero(np.diff(gt, prepend=-1))  # pairs are sorted by ground truth and descending IoU
    wanted = np.bincount(det[best], minlength=len(kept)) > 1
    contested = np.zeros(overlaps.pair_component.max(initial=-1) + 1, dtype=bool)
    contested[component[best][wanted[det[best]]]] = True

    chosen = [pairs[best[~contested[component[best]]]]]
    hard = pairs[contested[component]]
    hard = hard[np.argsort(overlaps.pair_component[hard], kind="stable")]
    bounds = np.flatnonzero(np.diff(overlaps.pair_component[hard])) + 1
    chosen += [group[_solve(overlaps, group)] for group in np.split(hard, bounds) if group.size]
    matched = np.concatenate(chosen)
    return overlaps.pair_det[matched], overlaps.pair_gt[matched]


def _solve(overlaps: _Overlaps, pairs: np.ndarray) -> np.ndarray:
    """A maximum-weight matching of one component, as indices into its `pairs`."""
    gts, row = np.unique(overlaps.pair_gt[pairs], return_inverse=True)
    dets, column = np.unique(overlaps.pair_det[pairs], return_inverse=True)
    weight = np.zeros((len(gts), len(dets)))
    weight[row, column] = overlaps.pair_iou[pairs]
    index = np.full(weight.shape, -1)
    index[row, column] = np.arange(len(pairs))
    chosen = index[linear_sum_assignment(weight, maximize=True)]
    return chosen[chosen >= 0]


def _flags_by_image(
    flags: np.ndarray,
    overlaps: _Overlaps,
    ground_truths: Sequence[GroundTruth],
    detections: Mapping[Hashable, Detections],
) -> dict[Hashable, np.ndarray]:
    bounds = np.cumsum(np.bincount(overlaps.det_image, minlength=overlaps.num_images))[:-1]
    result = {}
    for gt, position, in_score_order in zip(
        ground_truths, np.split(overlaps.det_position, bounds), np.split(flags, bounds), strict=True
    ):
        if gt.image_id in detections:
            result[gt.image_id] = np.empty(len(position), dtype=np.int8)
            result[gt.image_id][position] = in_score_order
    return result
