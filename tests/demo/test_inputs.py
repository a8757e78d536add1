from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from la_det.demo.inputs import batches, find_files, read_frames
from la_det.errors import UserError


def write_video(path: Path, frames: int, fps: float = 12.0) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, (48, 32))
    for i in range(frames):
        writer.write(np.full((32, 48, 3), 10 * i, np.uint8))
    writer.release()


def write_noise(path: Path, codec: str) -> None:
    """100 pictures of noise, 10 per second."""
    pictures = np.random.default_rng(0).integers(0, 256, (100, 32, 48, 3), dtype=np.uint8)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10.0, (48, 32))
    for picture in pictures:
        writer.write(picture)
    writer.release()


def test_folders_are_searched_without_hidden_files(tmp_path):
    for name in ("b.jpg", "a.txt", ".hidden.jpg", "sub/c.png", ".cache/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_files([tmp_path]) == [tmp_path / "a.txt", tmp_path / "b.jpg", tmp_path / "sub/c.png"]
    assert find_files([tmp_path / "sub", tmp_path / "b.jpg", tmp_path / "b.jpg"]) == [
        tmp_path / "sub/c.png",
        tmp_path / "b.jpg",
    ]


def test_nothing_to_read(tmp_path):
    with pytest.raises(UserError, match="no file in there"):
        find_files([tmp_path])
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        find_files([tmp_path / "nowhere"])


def test_video_gives_its_frames_in_order(tmp_path):
    write_video(tmp_path / "a.mp4", 3)
    frames = list(read_frames(tmp_path / "a.mp4"))
    assert [(f.number, f.fps, f.image.shape) for f in frames] == [(i, 12.0, (32, 48, 3)) for i in range(3)]
    assert [round(f.image.mean() / 10) for f in frames] == [0, 1, 2]


def frames_and_error(file: Path) -> tuple[int, str]:
    number = 0
    try:
        for _ in read_frames(file):
            number += 1
    except UserError as error:
        return number, str(error)
    return number, ""


@pytest.mark.parametrize(("suffix", "codec"), [("avi", "MJPG"), ("avi", "mp4v"), ("mkv", "mp4v"), ("mkv", "MJPG")])
@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_damaged_video_gives_its_beginning_and_is_named(tmp_path, suffix, codec, damage):
    whole, damaged = tmp_path / f"whole.{suffix}", tmp_path / f"damaged.{suffix}"
    write_noise(whole, codec)
    assert frames_and_error(whole) == (100, "")
    content = whole.read_bytes()
    half = len(content) // 2
    damaged.write_bytes(content[:half] + (b"" if damage == "cut" else bytes(len(content) - half)))
    number, error = frames_and_error(damaged)
    assert 30 < number < 60
    part = f"{number} pictures, up to second {number / 10:.1f} of 10.0"
    assert error == f"{damaged}: cannot read all of this video ({part}); replace or remove it"


class FakeVideo:
    """A video as OpenCV gives it: `count` pictures by its header, and pictures at these times."""

    def __init__(self, fps: float, count: float, seconds: Sequence[float]) -> None:
        self.values = {cv2.CAP_PROP_FPS: fps, cv2.CAP_PROP_FRAME_COUNT: count}
        self.seconds = list(seconds)

    def get(self, name: int) -> float:
        return self.values[name]

    def read(self) -> tuple[bool, np.ndarray | None]:
        if not self.seconds:
            return False, None
        self.values[cv2.CAP_PROP_POS_MSEC] = 1000 * self.seconds.pop(0)
        return True, np.zeros((32, 48, 3), np.uint8)

    def release(self) -> None:
        pass


@pytest.mark.parametrize(
    ("fps", "count", "seconds", "complete"),
    [
        (25, 393, np.linspace(0, 15.48, 100), True),  # WebM of a varying rate, whose number is length x 25
        (25, 393, np.linspace(0, 7.0, 44), False),
        (25, 99, np.zeros(98), True),  # MPEG without times
        (25, 107, np.arange(100) / 25, True),  # MKV whose sound lasts a little longer
        (25, -2.3e17, np.arange(100) / 25, True),  # WebM and WMV of unknown length
        (0, 0, np.arange(3) / 25, True),
        (10, 3, np.arange(2) / 10, True),
        (10, 100, np.arange(85) / 10, False),
    ],
)
def test_length_of_a_complete_video(tmp_path, monkeypatch, fps, count, seconds, complete):
    """The numbers are what OpenCV gave for files of FFmpeg."""
    (tmp_path / "a.mkv").touch()
    monkeypatch.setattr(cv2, "VideoCapture", lambda file: FakeVideo(fps, count, seconds))
    number, error = frames_and_error(tmp_path / "a.mkv")
    assert number == len(seconds)
    assert (error == "") is complete


@pytest.mark.parametrize("name", ["a.mp4", "a.jpg", "a.txt"])
def test_unreadable_file_is_named(tmp_path, name):
    (tmp_path / name).write_text("nothing")
    with pytest.raises(UserError, match=f"{name}: cannot read"):
        list(read_frames(tmp_path / name))


def test_batches():
    assert [len(batch) for batch in batches(range(7), 3)] == [3, 3, 1]
    assert not list(batches([], 3))
