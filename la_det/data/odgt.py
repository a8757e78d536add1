"""CrowdHuman's odgt form of annotations (arXiv 1805.00123).

An odgt file has one line per image, a JSON object `{"ID": ..., "gtboxes": [...]}`. The image is the file `<ID>.jpg`, or
`<ID>` with another suffix; an ID may name subfolders. A box has a `tag`, `fbox`, `vbox` and `hbox` (full body, visible
part, head; XYWH pixels, may reach beyond the image) and `extra`. The published files have no image sizes: these are
read from the headers of the images.
"""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from detectron2.utils.file_io import PathManager

from la_det.data.build import DEFAULTS, Options, Source, build
from la_det.data.images import IMAGE_SUFFIXES, MAX_SIDE, read_header
from la_det.data.problems import Problems, show
from la_det.data.table import Records
from la_det.errors import UserError

logger = logging.getLogger(__name__)

TAG = "person"  # tag of an object
IGNORED_TAG = "mask"  # tag of a region to ignore; boxes with other tags are ignored and reported


def is_ignored(box: Mapping, tag: str = TAG) -> bool:
    """Whether a box of an odgt file is to be ignored: it has another tag than `tag`, or a flag in `extra`."""
    return box["tag"] != tag or box.get("extra", {}).get("ignore", 0) != 0


def read_odgt(path: str | Path, image_root: str | Path | None = None, skip_bad: bool = False) -> list[dict]:
    """Read an annotation file. Every record gets `height` and `width`, also if the file does not have them.

    Sizes that were read from images are kept in `<file>.sizes.json` beside the file, if that folder is writable. Delete
    this file after exchanging images.

    Args:
        path: the odgt file.
        image_root: folder of the images; needed if a line has no size.
        skip_bad: leave damaged lines out and count them in one warning, instead of raising an error.

    Raises:
        UserError: the file cannot be read, has no usable line, or has a damaged line, which the message names.
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
        except (ValueError, RecursionError) as error:
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
    """Line numbers and lines that are not blank. Lines are bytes, so a wrong encoding damages only its own line."""
    try:
        file = PathManager.open(str(path), "rb")
    except OSError as error:
        raise UserError(f"{path}: no such file or not readable ({error.strerror}); check the path") from error
    with file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line


def _parse(line: bytes) -> dict:
    """The record of a line. Raises `ValueError`, which says what is wrong."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(record, dict) or type(record.get("ID")) not in (str, int):
        raise ValueError('no "ID", a string or an integer')
    if not isinstance(record.get("gtboxes"), list):
        raise ValueError('no list "gtboxes"')
    for index, box in enumerate(record["gtboxes"]):
        if not isinstance(box, dict) or not isinstance(box.get("tag"), str):
            raise ValueError(f'box {index} has no "tag"')
        extra = box.get("extra", {})
        if not isinstance(extra, dict) or extra.get("ignore", 0) not in (0, 1):
            raise ValueError(f'the "extra" of box {index} is not an object, or its "ignore" neither 0 nor 1')
        if not _is_xywh(box.get("fbox")):
            raise ValueError(f'the "fbox" of box {index} is not [x, y, width, height]: {show(box.get("fbox"))}')
    for key in ("height", "width"):
        if key in record and not (_is_number(record[key]) and record[key] % 1 == 0 and 0 < record[key] <= MAX_SIDE):
            raise ValueError(f'"{key}" is {show(record[key])}, no number of pixels')
    return record


def _is_number(value: object) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


def _is_xywh(box: object) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))


class _SizeCache:
    """(height, width) by image ID, from the file of an earlier reading or, if it lacks them, from the image files."""

    def __init__(self, odgt: Path, image_root: str | Path | None):
        self._image_root = image_root
        self._files = ImageFinder(image_root) if image_root is not None else None
        self._path = odgt.with_name(odgt.name + ".sizes.json")
        self._known: dict[str, list[int]] | None = None  # not needed if all lines have sizes
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
            try:
                self._known[key] = list(read_header(self._files.path(image_id)).size)
            except UserError as error:
                raise ValueError(str(error)) from error
            self._new += 1
        height, width = self._known[key]
        return height, width

    def _load(self) -> dict[str, list[int]]:
        try:
            known = json.loads(self._path.read_text())
            return {key: [int(height), int(width)] for key, (height, width) in known.items()}
        except (OSError, ValueError, TypeError, AttributeError):  # missing or unusable: it is made anew
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


class ImageFinder:
    """Finds the image of an ID, whatever its suffix. Each folder is listed once."""

    def __init__(self, image_root: str | Path):
        self._root = str(image_root)
        self._listed: dict[str, dict[str, str]] = {}

    def name(self, image_id: str | int) -> str:
        """Path of the image in the folder of images; if there is no such image, the path of a JPEG file."""
        folder, stem = os.path.split(str(image_id))
        if folder not in self._listed:
            self._listed[folder] = self._list(os.path.join(self._root, folder))
        return os.path.join(folder, self._listed[folder].get(stem, f"{stem}.jpg"))

    def path(self, image_id: str | int) -> str:
        """Path of the image."""
        return os.path.join(self._root, self.name(image_id))

    def _list(self, folder: str) -> dict[str, str]:
        try:
            names = sorted(os.listdir(folder))
        except (OSError, ValueError):
            return {}
        found = {}
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix == ".jpg" or (suffix.lower() in IMAGE_SUFFIXES and stem not in found):
                found[stem] = name
        return found


def read_odgt_records(odgt: str | Path, image_root: str | Path, options: Options = DEFAULTS) -> Records:
    """Read and check a file. An image's id is its ID. Ignored boxes are `iscrowd` of class 0, not clipped.

    Raises:
        UserError: a line is damaged (see `read_odgt`), or something is surely wrong.
    """
    records = read_odgt(odgt, image_root)
    problems = Problems(str(odgt))
    tag = options.tag or TAG
    boxes = [box for record in records for box in record["gtboxes"]]
    tags = Counter(box["tag"] for box in boxes)
    others = {name: count for name, count in tags.items() if name not in (tag, IGNORED_TAG)}
    found = ", ".join(f"{show(name)} ({count} boxes)" for name, count in others.items())
    if others and tag not in tags:
        raise UserError(
            f"{odgt}: no box has the tag {tag!r}, so all would be ignored; it has {found}: say which are objects, for "
            f"instance --dataset 'odgt:IMAGES,ODGT,tag={next(iter(others))}', or tag= of register_crowdhuman"
        )
    problems.note(
        [i for i, box in enumerate(boxes) if box["tag"] in others],
        lambda i: f"tag {show(boxes[i]['tag'])}",
        f"ignored like {IGNORED_TAG!r}, because only {tag!r} are objects",
    )
    files = ImageFinder(image_root)
    counts = [len(record["gtboxes"]) for record in records]
    return build(
        Source(
            problems=problems,
            image_root=str(image_root),
            names=[files.name(record["ID"]) for record in records],
            ids=[record["ID"] for record in records],
            sizes=np.array([(record["height"], record["width"]) for record in records], dtype=np.int64),
            classes=[tag],
            class_ids=[1],
            images=np.repeat(np.arange(len(records)), counts),
            labels=np.zeros(len(boxes), dtype=np.int64),
            boxes=np.array([box["fbox"] for box in boxes], dtype=np.float64).reshape(-1, 4),
            convention="xywh",
            asks=True,
            place="box {}",
            places=np.concatenate([np.arange(count) for count in counts]),
            crowd=np.array([is_ignored(box, tag) for box in boxes], dtype=bool),
            amodal=True,
        ),
        options,
    )
