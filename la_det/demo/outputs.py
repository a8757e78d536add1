"""Annotated pictures and videos, and detections in COCO's format."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
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


class Pictures:
    """Draws frames and writes them below `folder`, under the names of their files; a context manager.

    If an image's file is neither JPEG nor PNG, .jpg is added to its name. If a video's file is no MP4, .mp4 is added.
    """

    def __init__(self, folder: Path, files: Sequence[Path], metadata: Metadata) -> None:
        self._folder = folder
        self._parent = os.path.commonpath([file.resolve().parent for file in files])
        self._drawer = Drawer(metadata)
        self._video: Path | None = None

    def __enter__(self) -> Pictures:
        return self

    def __exit__(self, *exception: object) -> None:
        self._end_video()

    def write(self, frame: Frame, instances: Instances) -> None:
        """Draw all instances of a frame. The frames of a video must come one after the other."""
        drawn = np.ascontiguousarray(self._drawer.detections(frame.image[:, :, ::-1], instances)[:, :, ::-1])
        if frame.number is None:
            path = self._path(frame.file, IMAGE_SUFFIXES)
            if not cv2.imwrite(str(path), drawn):
                raise UserError(f"{path}: cannot write this picture; free some space")
            return
        if frame.file != self._video:
            self._begin_video(frame)
        self._writer.write(drawn)

    def _begin_video(self, frame: Frame) -> None:
        self._end_video()
        path = self._path(frame.file, (".mp4",))
        height, width = frame.image.shape[:2]
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), frame.fps, (width, height))
        if not self._writer.isOpened():
            raise UserError(f"{path}: cannot write this video; OpenCV was built without FFmpeg")
        self._video = frame.file

    def _end_video(self) -> None:
        if self._video is not None:
            self._writer.release()
            self._video = None

    def _path(self, file: Path, suffixes: tuple[str, ...]) -> Path:
        path = self._folder / file.resolve().relative_to(self._parent)
        if path.suffix.lower() not in suffixes:
            path = path.with_name(f"{path.name}{suffixes[0]}")
        if path.resolve() == file.resolve():
            raise UserError(f"{file}: the annotated picture would replace it; choose another output folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


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
        self.images.append(image if frame.number is None else image | {"frame": frame.number})
        self.detections += with_dataset_ids(instances_to_coco_json(instances, image["id"]), self._metadata)

    def write(self, folder: Path) -> None:
        """Write both files."""
        (folder / "detections.json").write_text(json.dumps(self.detections))
        (folder / "images.json").write_text(json.dumps({"images": self.images, "categories": self.categories}))


def _categories(metadata: Metadata) -> list[dict]:
    names = metadata.get("thing_classes", [])
    ids = metadata.get("thing_dataset_id_to_contiguous_id") or {i: i for i in range(len(names))}
    return [{"id": number, "name": names[i]} for number, i in ids.items()]
