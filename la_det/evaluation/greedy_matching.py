"""The evaluators' one-to-one matching of detections with ground truths, for a whole data set at once."""

from __future__ import annotations

import numpy as np


def match_greedily(
    pair_det: np.ndarray, pair_gt: np.ndarray, pair_iou: np.ndarray, num_dets: int, num_gts: int
) -> np.ndarray:
    """Which detections get a ground truth, when each detection in turn takes the free ground truth of largest IoU.

    All images are matched at once, by deferred acceptance: every detection asks for the best ground truth that has not
    refused it, and a ground truth keeps the first detection that asks. All ground truths rank the detections alike, so
    the unique stable outcome is that of the official loop. It takes as many rounds as the longest chain of refusals.

    Args:
        pair_det, pair_gt, pair_iou: [P] detection, ground truth and IoU of the pairs that may match. A detection's
            index is its turn: the detections of an image are sorted by descending score.
        num_dets, num_gts: D and G.

    Returns:
        [D] bool, whether a detection gets a ground truth.
    """
    preference = np.lexsort((pair_gt, -pair_iou, pair_det))
    choices = pair_gt[preference]
    end = np.cumsum(np.bincount(pair_det, minlength=num_dets))
    current = np.concatenate(([0], end[:-1])) if num_dets else end
    keeper = np.full(num_gts, num_dets)
    asking = np.flatnonzero(current < end)
    while asking.size:
        wanted = choices[current[asking]]
        before = keeper[wanted]
        np.minimum.at(keeper, wanted, asking)
        refused = np.concatenate(
            (asking[keeper[wanted] != asking], before[(keeper[wanted] != before) & (before < num_dets)])
        )
        refused = np.unique(refused)
        current[refused] += 1
        asking = refused[current[refused] < end[refused]]
    matched = np.zeros(num_dets, dtype=bool)
    matched[keeper[keeper < num_dets]] = True
    return matched


def pairs_of_equal_keys(det_key: np.ndarray, gt_key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs (detection, ground truth) with equal keys, such as image and class: [P] each, ordered by detection."""
    order = gt_key.argsort(kind="stable")
    ordered = gt_key[order]
    start, end = np.searchsorted(ordered, det_key), np.searchsorted(ordered, det_key, side="right")
    det = np.repeat(np.arange(len(det_key)), end - start)
    position = np.arange(len(det)) - np.repeat((end - start).cumsum() - end, end - start)
    return det, order[position]
