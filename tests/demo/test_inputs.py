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


@pytest.mark.parametrize("name", ["a.mp4", "a.jpg", "a.txt"])
def test_unreadable_file_is_named(tmp_path, name):
    (tmp_path / name).write_text("nothing")
    with pytest.raises(UserError, match=f"{name}: cannot read"):
        list(read_frames(tmp_path / name))


def test_batches():
    assert [len(batch) for batch in batches(range(7), 3)] == [3, 3, 1]
    assert not list(batches([], 3))
