"""Detectron2's dataset dicts for LazyConfig, with errors that name what is wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts

from la_det.data.dataset_dicts import drop_degenerate_boxes
from la_det.errors import UserError


def load_records(names: str | Sequence[str], filter_empty: bool) -> list[dict]:
    """Records of registered data sets, without degenerate boxes.

    Args:
        filter_empty: leave out images without objects (crowd regions are none), as Detectron2 does for COCO.

    Raises:
        UserError: for an unknown name and for annotation files that cannot be read, naming file and record.
    """
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if name not in DatasetCatalog:
            raise UserError(f"{name}: no such data set; register it in Detectron2's DatasetCatalog or use --dataset")
    try:
        records = get_detection_dataset_dicts(names, filter_empty=filter_empty)
    except json.JSONDecodeError as error:
        raise UserError(f"{_files(names)}: malformed JSON ({error}); write the file again") from error
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: no such file; check the paths of the data set {names}") from error
    except (KeyError, TypeError, AssertionError) as error:
        raise UserError(f"{_files(names)}: not COCO-format annotations ({error}); correct the file") from error
    return drop_degenerate_boxes(records) if "annotations" in records[0] else records


def check_num_classes(names: str | Sequence[str], num_classes: int) -> None:
    """Raise `UserError` unless the data sets, already loaded, have as many classes as the model."""
    for name in [names] if isinstance(names, str) else names:
        classes = MetadataCatalog.get(name).get("thing_classes")
        if classes is not None and len(classes) != num_classes:
            raise UserError(
                f"{name}: the data set has {len(classes)} classes, the config {num_classes}; "
                f"set model.num_classes={len(classes)}"
            )


def _files(names: Sequence[str]) -> str:
    return ", ".join(MetadataCatalog.get(name).get("json_file", name) for name in names)
