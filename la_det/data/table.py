"""Checked records of a data set: columns that processes share, and Detectron2's dataset dicts made from them singly."""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

import numpy as np
from detectron2.structures import BoxMode

from la_det.data.columns import Ids, Strings
from la_det.data.problems import KINDS_IN_ERROR, Problems
from la_det.data.segmentations import FINE, REASONS, Segmentations
from la_det.errors import UserError


@dataclass(frozen=True, eq=False)
class Records(Sequence[dict]):
    """N images with A annotations. Images and classes are numbered from 0; ids of files are only passed on.

    `records[i]` is a new dict in Detectron2's form, with the file's `image_id`. Unless the data set has no annotations
    at all, it has `annotations` in the order of the file.

    Attributes:
        source: the file or folder that messages name.
        image_root: folder of the images.
        classes, class_ids: names of the K classes, and their ids in the source.
        names: [N] file names, relative to the folder.
        ids: [N] ids of the images in the source.
        sizes: [N, 2] height and width.
        ends: [N + 1] where each image's annotations begin in the columns below, and the end of the last one's.
        boxes: [A, 4] XYWH pixels, float64.
        labels: [A] class numbers.
        crowd: [A] bool: a region to ignore (`iscrowd`).
        areas: [A] square pixels, for the sizes of objects in COCO's evaluation.
        masks: masks of the source's annotations; None: there are no masks.
        rows: [A] row of each annotation in the masks.
        place: text with a gap for an annotation's place in the source, for instance "annotations[{}]".
        places: [A] numbers that fill this gap.
        has_objects: [N] bool, whether the source has an annotation of the image that is no region to ignore.
        annotated: whether the source has annotations; the test sets of competitions have none.
        problems: problems that did not stop the reading.
        chosen: [M] numbers of the images that are used; None: all.
    """

    source: str
    image_root: str
    classes: tuple[str, ...]
    class_ids: tuple[int | float | str, ...]
    names: Strings
    ids: Ids
    sizes: np.ndarray
    ends: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    masks: Segmentations | None
    rows: np.ndarray
    place: str
    places: np.ndarray
    has_objects: np.ndarray
    annotated: bool
    problems: Problems
    chosen: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names) if self.chosen is None else len(self.chosen)

    def __getitem__(self, index: int | slice) -> dict | list[dict]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        image = self._image(index)
        height, width = self.sizes[image].tolist()
        record = {
            "file_name": self.file_name(index),
            "height": height,
            "width": width,
            "image_id": self.ids[image],
        }
        if self.annotated:
            record["annotations"] = self._annotations(slice(*self.ends[image : image + 2]))
        return record

    def __iter__(self) -> Iterator[dict]:
        return (self[i] for i in range(len(self)))

    def _image(self, index: int) -> int:
        count = len(self)
        if not -count <= index < count:
            raise IndexError(index)
        return index % count if self.chosen is None else int(self.chosen[index])

    def _annotations(self, part: slice) -> list[dict]:
        columns = (self.boxes, self.labels, self.crowd, self.rows)
        annotations = []
        for box, label, crowd, row in zip(*(column[part].tolist() for column in columns), strict=True):
            annotation = {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": label, "iscrowd": int(crowd)}
            mask = self.masks[row] if self.masks is not None else None
            annotations.append(annotation if mask is None else annotation | {"segmentation": mask})
        return annotations

    def file_name(self, index: int) -> str:
        """Path of an image file."""
        return os.path.join(self.image_root, self.names[self._image(index)])

    def images(self) -> np.ndarray:
        """[M] numbers of the images in the columns."""
        return np.arange(len(self.names)) if self.chosen is None else self.chosen

    def counts(self) -> np.ndarray:
        """[M] number of annotations of each image."""
        return np.diff(self.ends)[self.images()]

    def annotation_images(self) -> np.ndarray:
        """[A] number of each annotation's image in the columns."""
        return np.repeat(np.arange(len(self.names)), np.diff(self.ends))

    def is_used(self) -> np.ndarray:
        """[A] bool, whether the annotation's image is used."""
        return np.isin(self.annotation_images(), self.images())

    def is_portrait(self) -> np.ndarray:
        """[M] bool, whether the image is at least as high as wide, for batches of one aspect ratio."""
        height, width = self.sizes[self.images()].T
        return width <= height

    def choose(self, flags: np.ndarray) -> Records:
        """The images at `flags` [M] bool, with the same columns."""
        return replace(self, chosen=self.images()[flags])

    def with_annotations(self) -> Records:
        """The images that have an annotation."""
        return self.choose(self.counts() > 0)

    def with_objects(self) -> Records:
        """The images for which the source has an object; as in Detectron2, its box may have been dropped."""
        return self.choose(self.has_objects[self.images()])

    def require_objects(self) -> None:
        """Raise `UserError`, which names the first problems found, if no image has an object."""
        if not (self.is_used() & ~self.crowd).any():
            found = " | ".join(map(str, self.problems.found[:KINDS_IN_ERROR]))
            raise UserError(
                f"{self.source}: no image has an object; there is nothing to train on"
                + (f" ({found})" if found else "")
            )

    def require_masks(self) -> None:
        """Raise `UserError`, which names the first object, if objects (not ignored regions) have no usable mask."""
        state = self.masks.state[self.rows] if self.masks is not None else np.full(len(self.rows), 1)
        bad = np.flatnonzero((state != FINE) & ~self.crowd)
        if not len(bad):
            return
        first = bad[np.argmin(self.rows[bad])]  # the first one in the file
        image = self.names[int(self.annotation_images()[first])]
        raise UserError(
            f"{self.source}: {self.place.format(self.places[first])} of image {image}: {REASONS[int(state[first])]}, "
            f"and this model learns masks ({len(bad)} of {len(state)} annotations like this); add their masks, remove "
            "them, or train a model of boxes"
        )

    def require_files(self) -> None:
        """Raise `UserError`, which names the first file, if image files are missing. Each folder is listed once."""
        listed: dict[str, set[str]] = {}
        missing = []
        for index in range(len(self)):
            path = self.file_name(index)
            if "://" in path:  # a path of another file system: it is checked when it is opened
                continue
            folder, name = os.path.split(path)
            if folder not in listed:
                listed[folder] = _names_in(folder)
            if name not in listed[folder]:
                missing.append(path)
        if missing:
            raise UserError(
                f"{self.source}: {len(missing)} of its {len(self)} image files are missing, the first is {missing[0]}; "
                f"check the folder {self.image_root} and the file names in {PurePath(self.source).name}"
            )


def _names_in(folder: str) -> set[str]:
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries}
    except OSError:
        return set()


class Joined(Sequence[dict]):
    """Records of several data sets, one after the other."""

    def __init__(self, parts: Sequence[Sequence[dict]]) -> None:
        self.parts = parts
        self._ends = np.cumsum([len(part) for part in parts]).tolist()

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int | slice) -> dict | list[dict]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        part = bisect.bisect_right(self._ends, index)
        return self.parts[part][index - (self._ends[part - 1] if part else 0)]

    def __iter__(self) -> Iterator[dict]:
        return (record for part in self.parts for record in part)
