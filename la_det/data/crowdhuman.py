"""CrowdHuman (arXiv 1805.00123): its odgt annotation files and their registration in Detectron2's catalogs.

An odgt file has one JSON object per line and image, `{"ID": ..., "gtboxes": [...]}`; the image is `<ID>.jpg`.
A box has a `tag`, `fbox`, `vbox` and `hbox` (full body, visible part, head; XYWH pixels, may reach beyond the
image) and `extra`. The published files do not tell the size of an image: it is then read from the image's header.

`crowdhuman_train` and `crowdhuman_val` (see builtin.py) are expected as published in `$DETECTRON2_DATASETS/CrowdHuman`:
`annotation_train.odgt`, `annotation_val.odgt`, and all images in `Images`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager
from PIL import ExifTags, Image

from la_det.data.records import load_records
from la_det.errors import UserError

logger = logging.getLogger(__name__)

CLASSES = ["person"]
ROTATED_BY_90_DEGREES = (5, 6, 7, 8)  # values of the EXIF orientation


def is_ignored(box: Mapping) -> bool:
    """Whether a box of an odgt file marks a region to be ignored: no person, or flagged in `extra`."""
    return box["tag"] != "person" or box.get("extra", {}).get("ignore", 0) != 0


def read_odgt(path: str | Path, image_root: str | Path | None = None, skip_bad: bool = False) -> list[dict]:
    """Read an annotation file; every record gets `height` and `width`, whether the file has them or not.

    Sizes read from the images are kept beside the file as `<file>.sizes.json` where that folder is writable; delete
    it after exchanging images.

    Args:
        path: the odgt file.
        image_root: folder of the images; needed where a line has no size.
        skip_bad: leave damaged lines out, counted in one warning, instead of raising.

    Raises:
        UserError: the file cannot be read, has no usable line, or a damaged one, which is named.
    """
    sizes = _SizeCache(Path(path), image_root)
    records: dict = {}
    damages = []
    for number, line in _lines(path):
        try:
            record = _parse(line)
            if record["ID"] in records:
                raise ValueError(f"the ID {record['ID']!r} was in the file before")
            if "height" not in record or "width" not in record:
                record["height"], record["width"] = sizes.get(record["ID"])
            records[record["ID"]] = record
        except (ValueError, OSError) as error:
            damages.append(f"{path}, line {number}: {error}")
            if not skip_bad:
                raise UserError(
                    f"{damages[0]}. Mend or remove the line, or write a file without such lines with "
                    "tools/convert_crowdhuman.py --skip-bad"
                ) from error
    sizes.save()
    if damages:
        logger.warning("%s: left out %d damaged lines, the first is %s", path, len(damages), damages[0])
    if not records:
        raise UserError(f"{path} has no usable line" + (f"; {damages[0]}" if damages else ""))
    return list(records.values())


def _lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """Line numbers and lines that are not blank; bytes, so that a badly encoded line is that line's damage."""
    try:
        file = PathManager.open(str(path), "rb")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): is the data set there, or $DETECTRON2_DATASETS another folder?"
        ) from error
    with file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line


def _parse(line: bytes) -> dict:
    """Raises ValueError, saying what is wrong."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(record, dict) or not isinstance(record.get("ID"), str | int):
        raise ValueError('no "ID"')
    if not isinstance(record.get("gtboxes"), list):
        raise ValueError('no list "gtboxes"')
    for index, box in enumerate(record["gtboxes"]):
        if not isinstance(box, dict) or not isinstance(box.get("tag"), str):
            raise ValueError(f'box {index} has no "tag"')
        if not isinstance(box.get("extra", {}), dict):
            raise ValueError(f'the "extra" of box {index} is not an object')
        if not _is_xywh(box.get("fbox")):
            raise ValueError(f'the "fbox" of box {index} is not [x, y, width, height]: {box.get("fbox")}')
    for key in ("height", "width"):
        if key in record and not (_is_number(record[key]) and record[key] > 0):
            raise ValueError(f'"{key}" is {record[key]!r}')
    return record


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_xywh(box: object) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))


class _SizeCache:
    """(height, width) by image ID, read from the image files where the file of an earlier reading lacks them."""

    def __init__(self, odgt: Path, image_root: str | Path | None):
        self._image_root = image_root
        self._path = odgt.with_name(odgt.name + ".sizes.json")
        self._known: dict[str, list[int]] | None = None  # not needed where all lines have sizes
        self._new = 0

    def get(self, image_id: str | int) -> tuple[int, int]:
        if self._known is None:
            self._known = self._load()
        key = str(image_id)
        if key not in self._known:
            if self._image_root is None:
                raise ValueError("no height and width, and the folder of the images is not given")
            if not self._new:
                if not PathManager.isdir(str(self._image_root)):
                    raise UserError(f"{self._image_root}: no such folder of images; their sizes are read there")
                logger.info("Reading image sizes from the files in %s", self._image_root)
            self._known[key] = list(_image_size(image_file(self._image_root, image_id)))
            self._new += 1
        height, width = self._known[key]
        return height, width

    def _load(self) -> dict[str, list[int]]:
        try:
            return json.loads(self._path.read_text())
        except (OSError, ValueError):  # not there yet, or unusable: it can always be made anew
            return {}

    def save(self) -> None:
        if not self._new:
            return
        try:  # renamed when complete, as several processes may write it at once
            with tempfile.NamedTemporaryFile("w", dir=self._path.parent, delete=False) as file:
                json.dump(self._known, file)
            os.chmod(file.name, 0o644)
            os.replace(file.name, self._path)
        except OSError as error:
            logger.info("Image sizes are not kept for the next time: %s", error)


def image_file(image_root: str | Path, image_id: str | int) -> str:
    return os.path.join(image_root, f"{image_id}.jpg")


def _image_size(path: str) -> tuple[int, int]:
    """(height, width) from the header, as Detectron2 will show the image: turned as its EXIF data say."""
    with PathManager.open(path, "rb") as file, Image.open(file) as image:
        width, height = image.size
        turned = image.getexif().get(ExifTags.Base.Orientation) in ROTATED_BY_90_DEGREES
    return (width, height) if turned else (height, width)


def load_crowdhuman(odgt: str | Path, image_root: str | Path) -> list[dict]:
    """Detectron2 dataset dicts of full-body boxes, as they are in the file: not clipped, none left out.

    Ignored boxes are `iscrowd = 1` of class 0: the class -1 of other implementations would break Detectron2's class
    histogram. An image's `image_id` is its ID.

    Raises:
        UserError: a damaged line, see :func:`read_odgt`.
    """
    return [
        {
            "file_name": image_file(image_root, record["ID"]),
            "image_id": record["ID"],
            "height": record["height"],
            "width": record["width"],
            "annotations": [
                {
                    "bbox": box["fbox"],
                    "bbox_mode": BoxMode.XYWH_ABS,
                    "category_id": 0,
                    "iscrowd": int(is_ignored(box)),
                }
                for box in record["gtboxes"]
            ],
        }
        for record in read_odgt(odgt, image_root)
    ]


def register_crowdhuman(name: str, odgt: str | Path, image_root: str | Path) -> None:
    """Register a data set in the odgt form; its files are read at first use."""
    DatasetCatalog.register(name, partial(load_crowdhuman, odgt, image_root))
    MetadataCatalog.get(name).set(
        thing_classes=CLASSES, odgt_file=str(odgt), image_root=str(image_root), evaluator_type="crowdhuman"
    )


def load_annotated_records(names: str | Sequence[str]) -> list[dict]:
    """Records of registered data sets for training: images with ignored boxes only stay, those without any box do not.

    Raises:
        UserError: see :func:`la_det.data.records.load_records`.
    """
    return [record for record in load_records(names, filter_empty=False) if record["annotations"]]
