"""Checks of Detectron2 dataset dicts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from numbers import Real

import numpy as np
from detectron2.structures import BoxMode

from la_det.data.boxes import have_area_inside
from la_det.errors import UserError

logger = logging.getLogger(__name__)


def drop_degenerate_boxes(dataset_dicts: list[dict]) -> list[dict]:
    """Leave out annotations whose box is not finite or has no area inside its image; one warning counts them.

    Raises:
        UserError: a dict lacks a required key, or a box is not four numbers; the message names the image's file.
    """
    _check_keys(dataset_dicts)
    boxes = _boxes_xyxy(dataset_dicts)
    counts = [len(image["annotations"]) for image in dataset_dicts]
    sizes = np.repeat([(image["height"], image["width"]) for image in dataset_dicts], counts, axis=0)
    good = have_area_inside(boxes, sizes)
    if good.all():
        return dataset_dicts

    result = []
    for image, flags in zip(dataset_dicts, np.split(good, np.cumsum(counts)[:-1]), strict=True):
        if not flags.all():
            kept = [annotation for annotation, flag in zip(image["annotations"], flags, strict=True) if flag]
            image = {**image, "annotations": kept}
        result.append(image)
    first = int(np.argmin(good))
    logger.warning(
        "Dropped %d boxes that are not finite or have no area inside their image; the first is XYXY %s of %s",
        np.count_nonzero(~good),
        boxes[first].tolist(),
        dataset_dicts[int(np.searchsorted(np.cumsum(counts), first, side="right"))]["file_name"],
    )
    return result


def _check_keys(dataset_dicts: list[dict]) -> None:
    for i, image in enumerate(dataset_dicts):
        lacking = [key for key in ("file_name", "height", "width", "annotations") if key not in image]
        if lacking:
            raise UserError(f"dataset dict {i}: it has no {lacking[0]}; correct the function that makes it")
        for j, annotation in enumerate(image["annotations"]):
            lacking = [key for key in ("bbox", "bbox_mode", "category_id") if key not in annotation]
            if lacking:
                raise UserError(
                    f"{image['file_name']}: annotation {j} has no {lacking[0]}; correct the function that makes it"
                )


def _boxes_xyxy(dataset_dicts: list[dict]) -> np.ndarray:
    """[G, 4] boxes of all annotations."""
    annotations = [annotation for image in dataset_dicts for annotation in image["annotations"]]
    try:
        boxes = np.array([annotation["bbox"] for annotation in annotations], dtype=np.float64).reshape(
            len(annotations), 4
        )
    except (ValueError, TypeError) as error:
        raise UserError(_name_bad_box(dataset_dicts)) from error
    modes = np.array([annotation["bbox_mode"] for annotation in annotations])
    for mode in np.unique(modes):
        boxes[modes == mode] = BoxMode.convert(boxes[modes == mode], BoxMode(mode), BoxMode.XYXY_ABS)
    return boxes


def _name_bad_box(dataset_dicts: list[dict]) -> str:
    image, box = next(
        (image["file_name"], annotation["bbox"])
        for image in dataset_dicts
        for annotation in image["annotations"]
        if not _is_box(annotation["bbox"])
    )
    return f"{image} is annotated with a box that is not four numbers: {box}. Mend or remove that annotation"


def _is_box(box: object) -> bool:
    return isinstance(box, Sequence | np.ndarray) and len(box) == 4 and all(isinstance(value, Real) for value in box)
