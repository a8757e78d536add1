"""Conventions of boxes in annotation files, and checks of boxes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from la_det.data.problems import Problems

MAX_COORDINATE = 1e7  # pixels; beyond, single precision cannot tell neighbouring pixels apart
OUTSIDE = 1.0  # a box that reaches more pixels than this beyond its image is reported
MANY_OUTSIDE = 0.1  # if this share of boxes reaches beyond the right or lower border, another convention is suspected


def _xyxy(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1)


def _centred(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]), axis=1)


def _of_size(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return boxes * np.concatenate((sizes[:, ::-1], sizes[:, ::-1]), axis=1)


# How a file's four numbers become x, y, width, height in pixels, for sizes [A, 2] (height, width) of the images.
CONVENTIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "xywh": lambda boxes, sizes: boxes,
    "xyxy": lambda boxes, sizes: _xyxy(boxes),
    # Pascal VOC: numbers of the object's first and last pixel, counted from 1.
    "pixels": lambda boxes, sizes: _xyxy(boxes - np.array([1.0, 1.0, 0.0, 0.0])),
    "xywh_fractions": _of_size,
    "xyxy_fractions": lambda boxes, sizes: _of_size(_xyxy(boxes), sizes),
    # YOLO: centre and size.
    "cxcywh_fractions": lambda boxes, sizes: _of_size(_centred(boxes), sizes),
}
CORNERS = ("xyxy", "pixels")
FRACTIONS = ("xywh_fractions", "xyxy_fractions", "cxcywh_fractions")


def check_convention(boxes: np.ndarray, sizes: np.ndarray, describe: Callable[[int], str], problems: Problems) -> None:
    """Stop with a question if boxes [A, 4] that should be XYWH look like corners or fractions of the image.

    Args:
        sizes: [A, 2] height and width of each box's image.
    """
    rows = np.flatnonzero(np.isfinite(boxes).all(axis=1))
    boxes, sizes = boxes[rows], sizes[rows]
    if not len(boxes):
        return
    answer = "if they are not, boxes=xywh takes them as they are"
    if boxes.max() <= 1 and boxes.min() >= 0 and (boxes % 1).any() and (sizes > 2).any():
        problems.stop(
            rows,
            describe,
            "no box reaches beyond the first pixel, so they look like fractions of the image: add "
            f",boxes=xywh_fractions (or xyxy_fractions, cxcywh_fractions) to the data set to convert them; {answer}",
        )
        return
    width, height = sizes[:, 1], sizes[:, 0]
    corners = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]) & (boxes[:, :2] >= 0).all(axis=1)
    corners &= (boxes[:, 2] <= width + OUTSIDE) & (boxes[:, 3] <= height + OUTSIDE)
    beyond = (boxes[:, 0] + boxes[:, 2] > width + OUTSIDE) | (boxes[:, 1] + boxes[:, 3] > height + OUTSIDE)
    if corners.all() and beyond.mean() >= MANY_OUTSIDE:
        problems.stop(
            rows[beyond],
            describe,
            "it reaches beyond its image as x, y, width, height, and all boxes fit as x1, y1, x2, y2: add "
            f",boxes=xyxy to the data set to convert them; {answer}",
        )


def have_area_inside(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """[A] bool, whether an XYXY box of [A, 4] is finite and has an area inside its image.

    Args:
        sizes: [A, 2] height and width of each box's image.
    """
    x1, y1, x2, y2 = corners.T
    height, width = sizes.T
    # Comparisons with NaN are false.
    good = np.isfinite(corners).all(axis=1)
    return good & (x1.clip(0) < x2.clip(max=width)) & (y1.clip(0) < y2.clip(max=height))


def usable_boxes(
    boxes: np.ndarray, sizes: np.ndarray, describe: Callable[[int], str], problems: Problems
) -> np.ndarray:
    """[A] bool, whether an XYWH box of [A, 4] is finite and has an area inside its image; all others are dropped.

    Args:
        sizes: [A, 2] height and width of each box's image.
    """
    good = have_area_inside(np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1), sizes)
    bad = np.flatnonzero(~good)
    if len(boxes) and not good.any():
        problems.stop(bad, describe, "no box at all is finite and has an area inside its image; correct the file")
    else:
        problems.drop(bad, describe, "dropped, because the box is not finite or has no area inside its image")
    return good


def note_boxes_beyond(
    boxes: np.ndarray, sizes: np.ndarray, good: np.ndarray, describe: Callable[[int], str], problems: Problems
) -> None:
    """Count the usable (`good` [A]) XYWH boxes [A, 4] that reach beyond their image."""
    start, end = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    beyond = (start < -OUTSIDE).any(axis=1) | (end > sizes[:, ::-1] + OUTSIDE).any(axis=1)
    rows = np.flatnonzero(good & beyond)
    problems.note(rows, describe, "the box reaches beyond its image; that part cannot be found")
