"""Images and videos as one stream of frames."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from la_det.data.images import read_bgr
from la_det.errors import UserError

# Of a video's length, for which OpenCV gives a number of pictures. AVI and MP4 store this number. For other files it is
# rate x length, which is inexact: the rate may vary, and sound may last longer. So times are compared, and a tenth may
# be missing.
MIN_SHARE = 0.9
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})


@dataclass(frozen=True)
class Frame:
    """An image, or one picture of a video.

    Attributes:
        file: file of the image or video.
        image: [H, W, 3] uint8, BGR.
        number: number of the picture in the video, from 0; None for an image.
        fps: pictures per second of the video.
    """

    file: Path
    image: np.ndarray
    number: int | None = None
    fps: float | None = None


def find_files(paths: Sequence[Path]) -> list[Path]:
    """The files among `paths` and, sorted, the files in its folders and their subfolders, without hidden files.

    Raises:
        UserError: a path does not exist, or there is no file.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        files += _files_of(path) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{', '.join(map(str, paths))}: no file in there")
    return list(dict.fromkeys(files))


def _files_of(folder: Path) -> list[Path]:
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root, name) for name in files if not name.startswith(".")]
    return sorted(found)


def read_frames(file: Path) -> Iterator[Frame]:
    """The frames of a video, or the one frame of an image.

    Raises:
        UserError: the file cannot be read. A damaged video first gives the frames that can be read.
    """
    if file.suffix.lower() in VIDEO_SUFFIXES:
        if not file.is_file():  # OpenCV would wait for a pipe
            raise UserError(f"{file}: cannot read this video (it is no regular file); replace or remove it")
        return _read_video(file)
    return iter([Frame(file, read_bgr(file))])


def _read_video(file: Path) -> Iterator[Frame]:
    video = cv2.VideoCapture(str(file))
    try:
        fps = video.get(cv2.CAP_PROP_FPS) or 25.0  # some files do not give it
        length = video.get(cv2.CAP_PROP_FRAME_COUNT) / fps
        number, end = 0, 0.0
        while (picture := video.read())[0]:
            end = video.get(cv2.CAP_PROP_POS_MSEC) / 1000 + 1 / fps
            yield Frame(file, picture[1], number, fps)
            number += 1
    finally:
        video.release()
    if number == 0:
        raise UserError(f"{file}: cannot read this video; replace or remove it")
    if max(end, number / fps) < MIN_SHARE * length - 1 / fps:
        raise UserError(
            f"{file}: cannot read all of this video ({number} pictures, up to second {end:.1f} of {length:.1f}); "
            "replace or remove it"
        )


def batches(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """Lists of `size` frames; the last list may be shorter."""
    frames = iter(frames)
    while batch := list(islice(frames, size)):
        yield batch
