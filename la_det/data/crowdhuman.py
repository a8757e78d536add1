"""CrowdHuman (arXiv 1805.00123), and other data in its odgt form, in Detectron2's catalogs.

`crowdhuman_train` and `crowdhuman_val` (see builtin.py) are expected as published in `$DETECTRON2_DATASETS/CrowdHuman`:
`annotation_train.odgt`, `annotation_val.odgt`, and all images in `Images`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from la_det.data.build import Options
from la_det.data.odgt import TAG, read_odgt_records
from la_det.data.records import load_records
from la_det.data.table import Joined, Records
from la_det.errors import UserError


def register_crowdhuman(name: str, odgt: str | Path, image_root: str | Path, tag: str = TAG) -> None:
    """Register a data set in the odgt form; its files are read at first use.

    Args:
        tag: tag of the objects; boxes with another tag are ignored.
    """
    DatasetCatalog.register(name, partial(load_crowdhuman, odgt, image_root, tag))
    MetadataCatalog.get(name).set(
        thing_classes=[tag],
        odgt_file=str(odgt),
        odgt_tag=tag,
        image_root=str(image_root),
        evaluator_type="crowdhuman",
    )


def load_crowdhuman(odgt: str | Path, image_root: str | Path, tag: str = TAG) -> Records:
    """Dataset dicts of all full-body boxes that have an area in their image, as in the file, not clipped.

    Ignored boxes have `iscrowd = 1` and class 0: the class -1 of other implementations would break Detectron2's class
    histogram. An image's `image_id` is its ID.

    Raises:
        UserError: see :func:`la_det.data.odgt.read_odgt_records`.
    """
    return read_odgt_records(odgt, image_root, Options(tag=tag))


def load_annotated_records(names: str | Sequence[str]) -> Sequence[dict]:
    """Records of data sets for training. Images without any box are left out; images with ignored boxes only stay.

    Raises:
        UserError: see :func:`la_det.data.records.load_records`.
    """
    records = load_records(names, filter_empty=False)
    parts = records.parts if isinstance(records, Joined) else [records]
    kept = [p.with_annotations() if isinstance(p, Records) else [r for r in p if r["annotations"]] for p in parts]
    if not any(map(len, kept)):
        raise UserError(f"{names}: no image has a box; there is nothing to train on")
    return kept[0] if len(kept) == 1 else Joined(kept)
