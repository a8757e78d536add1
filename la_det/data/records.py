"""Records of data sets for LazyConfig, checked, with errors that name what is wrong."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.data.build import filter_images_with_only_crowd_annotations
from tabulate import tabulate

from la_det.data.dataset_dicts import drop_degenerate_boxes
from la_det.data.sources import is_read_here, read_source
from la_det.data.table import Joined, Records
from la_det.errors import UserError

logger = logging.getLogger(__name__)

MOST_CLASSES = 60  # with more classes, a log line does not count the objects of each


def load_records(names: str | Sequence[str], filter_empty: bool) -> Sequence[dict]:
    """Checked records of data sets, one after the other, in Detectron2's form.

    Args:
        names: names in Detectron2's catalog, or sources such as `coco:IMAGES,JSON` (see la_det/data/sources.py).
        filter_empty: leave out images without objects (crowd regions are none), as Detectron2 does for COCO.

    Raises:
        UserError: a name is unknown, classes differ, or annotations cannot be used; the message names file and record.
    """
    names = [names] if isinstance(names, str) else list(names)
    parts = [read_source(name) for name in names]
    classes = [MetadataCatalog.get(name).get("thing_classes") for name in names]
    for name, other in zip(names, classes, strict=True):
        if other != classes[0]:
            raise UserError(
                f"{name}: its classes are {other}, those of {names[0]} {classes[0]}; they need the same ones"
            )
    if filter_empty:
        parts = [_with_objects(name, part) for name, part in zip(names, parts, strict=True)]
    for name, part, of in zip(names, parts, classes, strict=True):
        if isinstance(part, Records) and part.annotated:
            logger.info("%s: %s", name, summary(part, of))
    parts = [part if isinstance(part, Records) else _without_degenerate(part) for part in parts]
    return parts[0] if len(parts) == 1 else Joined(parts)


def _without_degenerate(records: list[dict]) -> list[dict]:
    return drop_degenerate_boxes(records) if "annotations" in records[0] else records


def _with_objects(name: str, records: Records | list[dict]) -> Records | list[dict]:
    if isinstance(records, Records):
        if not records.annotated:
            return records
        records.require_objects()
        kept = records.with_objects()
    else:
        kept = filter_images_with_only_crowd_annotations(records)
    if not len(kept):
        raise UserError(f"{name}: no image has an object; there is nothing to train on")
    if len(kept) < len(records):
        logger.info("%s: %d of %d images have no object and are left out", name, len(records) - len(kept), len(records))
    return kept


def summary(records: Records, classes: Sequence[str]) -> str:
    """Numbers of images and of the objects of each class, as a table."""
    used = records.is_used()
    objects = used & ~records.crowd
    counts = np.bincount(records.labels[objects], minlength=len(classes))
    crowd = np.count_nonzero(used & records.crowd)
    text = f"{len(records)} images, {np.count_nonzero(objects)} objects of {len(classes)} classes" + (
        f", {crowd} regions to ignore" if crowd else ""
    )
    if len(classes) > MOST_CLASSES:
        return f"{text}, {np.count_nonzero(counts == 0)} classes without any"
    columns = min(3, len(classes))
    cells = [cell for pair in zip(classes, counts.tolist(), strict=True) for cell in pair]
    rows = [cells[i : i + 2 * columns] for i in range(0, len(cells), 2 * columns)]
    return f"{text}:\n" + tabulate(rows, ["class", "objects"] * columns, tablefmt="pipe")


def check_records(names: Sequence[str], num_classes: int, masks: bool) -> None:
    """Read data sets, and check all that can be checked before a model is built.

    Data sets that functions of others read are checked when they are loaded.

    Args:
        num_classes: number of the model's classes.
        masks: whether every object needs a mask.

    Raises:
        UserError: something is surely wrong, or the model has another number of classes.
    """
    for name in names:
        if not is_read_here(name):
            continue
        records = read_source(name)
        check_num_classes(name, num_classes)
        records.require_files()
        if masks and records.annotated:
            records.require_masks()


def check_num_classes(names: str | Sequence[str], num_classes: int) -> None:
    """Raise `UserError` unless the data sets, which have been loaded, have as many classes as the model."""
    for name in [names] if isinstance(names, str) else names:
        classes = MetadataCatalog.get(name).get("thing_classes")
        if classes is not None and len(classes) != num_classes:
            raise UserError(
                f"{name}: the data set has {len(classes)} classes, the config {num_classes}; "
                f"set model.num_classes={len(classes)}"
            )
