"""Annotated pictures and videos, and detections in COCO's format."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import cv2
import numpy as np
from detectron2.data import Metadata
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances

from la_det.demo.inputs import Frame
from la_det.drawing import Drawer
from la_det.errors import UserError
from la_det.evaluation.coco import with_dataset_ids

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_JPEG_SIDE = 65_500  # pixels, of OpenCV's encoder
MAX_NUMERATOR = 65_535  # of a rate in MPEG-4
ANOTHER_FOLDER = "choose another output folder or free some space"


class Pictures:
    """Draws frames and writes them below `folder`, under the names of their files; a context manager.

    If an image's file is neither JPEG nor PNG, .jpg is added to its name; .png if it is too large for JPEG. If a
    video's file is no MP4, .mp4 is added. A name that another file has gets a number.

    Attributes:
        unwritten: the reason for each file whose picture or video could not be written.
    """

    def __init__(self, folder: Path, files: Sequence[Path], metadata: Metadata) -> None:
        self.unwritten: dict[Path, str] = {}
        self._folder = folder
        # Names of links, not of their targets: caches keep files under their hashes.
        self._parent = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
        self._inputs = {file.resolve() for file in files}
        self._owners = {self._place(file): file for file in files}
        self._drawer = Drawer(metadata)
        self._video: tuple[Path, Path] | None = None  # its file, and where it is written

    def __enter__(self) -> Pictures:
        return self

    def __exit__(self, *exception: object) -> None:
        self._end_video()

    def write(self, frame: Frame, instances: Instances) -> None:
        """Draw all instances of a frame. The frames of a video must come one after the other."""
        if frame.file in self.unwritten:
            return
        drawn = np.ascontiguousarray(self._drawer.detections(frame.image[:, :, ::-1], instances)[:, :, ::-1])
        try:
            if frame.number is None:
                path = self._path(frame.file, (".png",) if max(drawn.shape) > MAX_JPEG_SIDE else IMAGE_SUFFIXES)
                path.write_bytes(cv2.imencode(path.suffix, drawn)[1])
                return
            if self._video is None or frame.file != self._video[0]:
                self._begin_video(frame)
            self._writer.write(drawn)
        except UserError as error:
            self.unwritten[frame.file] = str(error)
        except OSError as error:
            name = error.filename or self._folder
            self.unwritten[frame.file] = f"{name}: cannot be written ({error.strerror}); {ANOTHER_FOLDER}"

    def _begin_video(self, frame: Frame) -> None:
        self._end_video()
        path = self._path(frame.file, (".mp4",))
        path.touch()  # OpenCV would not say why it cannot
        height, width = frame.image.shape[:2]
        codec = cv2.VideoWriter_fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(path), codec, _mp4_rate(frame.fps or 0.0), (width, height))
        if not self._writer.isOpened():
            path.unlink()
            raise UserError(
                f"{path}: cannot be written (no encoder for {width} x {height} pixels); "
                "give images in place of this video, or install opencv-python-headless anew"
            )
        self._video = frame.file, path

    def _end_video(self) -> None:
        if self._video is None:
            return
        (file, path), self._video = self._video, None
        self._writer.release()
        if not cv2.VideoCapture(str(path)).isOpened():  # the writer does not say so
            self.unwritten[file] = f"{path}: cannot be written; {ANOTHER_FOLDER}"

    def _path(self, file: Path, suffixes: Sequence[str]) -> Path:
        """Where to write, in a folder that exists."""
        wanted = self._place(file)
        if wanted.suffix.lower() not in suffixes:
            wanted = wanted.with_name(f"{wanted.name}{suffixes[0]}")
        path, numbers = wanted, count(2)
        while self._owners.setdefault(path, file) != file:
            path = wanted.with_stem(f"{wanted.stem}_{next(numbers)}")
        if path.resolve() in self._inputs:
            raise UserError(f"{path}: would replace an input; choose another output folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _place(self, file: Path) -> Path:
        return self._folder / os.path.relpath(file, self._parent)


def _mp4_rate(fps: float) -> float:
    """The nearest rate that can be written: OpenCV makes it a decimal fraction, MPEG-4 has numerators up to 65,535."""
    digits = next(digits for digits in (3, 2, 1, 0) if digits == 0 or fps * 10**digits <= MAX_NUMERATOR)
    return min(max(round(fps, digits), 0.01), MAX_NUMERATOR)


class Detections:
    """Collects detections in COCO's format, for `detections.json` with the image ids of `images.json`."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self.categories = _categories(metadata)
        self.images: list[dict] = []
        self.detections: list[dict] = []

    def add(self, frame: Frame, instances: Instances) -> None:
        """Give the frame an id, and add its instances to the detections."""
        height, width = frame.image.shape[:2]
        image = {"id": len(self.images) + 1, "file_name": str(frame.file), "width": width, "height": height}
        found = with_dataset_ids(instances_to_coco_json(instances, image["id"]), self._metadata)
        self.images.append(image if frame.number is None else image | {"frame": frame.number})
        self.detections += found

    def write(self, folder: Path) -> None:
        """Write both files."""
        (folder / "detections.json").write_text(json.dumps(self.detections))
        (folder / "images.json").write_text(json.dumps({"images": self.images, "categories": self.categories}))


def _categories(metadata: Metadata) -> list[dict]:
    names = metadata.get("thing_classes", [])
    ids = metadata.get("thing_dataset_id_to_contiguous_id") or {i: i for i in range(len(names))}
    return [{"id": number, "name": names[i]} for number, i in ids.items()]
