import json
import resource
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import Metadata
from detectron2.structures import Boxes, Instances
from faster_coco_eval import COCO
from torch import tensor, zeros

from la_det.demo.inputs import VIDEO_SUFFIXES, Frame, read_frames
from la_det.demo.outputs import Detections, Pictures

METADATA = Metadata(thing_classes=["left", "right"], thing_dataset_id_to_contiguous_id={3: 0, 7: 1})
IMAGE = np.zeros((48, 64, 3), np.uint8)


def found(masks: bool = False, boxes: int = 1) -> Instances:
    instances = Instances(IMAGE.shape[:2], pred_boxes=Boxes(tensor([[8.0, 8.0, 40.0, 40.0]] * boxes)))
    instances.scores, instances.pred_classes = tensor([0.5] * boxes), tensor([1] * boxes)
    if masks:
        instances.pred_masks = zeros(boxes, *IMAGE.shape[:2], dtype=bool)
        instances.pred_masks[:, 8:40, 8:24] = True
    return instances


NOTHING = found(boxes=0)


@pytest.mark.parametrize("masks", [False, True])
def test_detections_are_coco_results(tmp_path, masks):
    detections = Detections(METADATA)
    for number in (None, 4):
        detections.add(Frame(tmp_path / "a.mp4", IMAGE, number), found(masks))
    detections.add(Frame(tmp_path / "b.jpg", IMAGE), found(boxes=0))
    detections.write(tmp_path)
    truth = COCO(str(tmp_path / "images.json"))
    results = truth.loadRes(str(tmp_path / "detections.json"))
    assert [image.get("frame") for image in truth.imgs.values()] == [None, 4, None]
    assert [truth.cats[number]["name"] for number in (3, 7)] == METADATA.thing_classes
    for image in (1, 2):
        (detection,) = results.imgToAnns[image]
        assert detection["category_id"] == 7 and detection["score"] == 0.5
        assert detection["bbox"] == [8, 8, 32, 32]
        assert not masks or results.annToMask(detection).sum() == 32 * 16


def test_without_class_names(tmp_path):
    detections = Detections(Metadata())
    detections.add(Frame(tmp_path / "a.jpg", IMAGE), found())
    with Pictures(tmp_path / "out", [tmp_path / "a.jpg"], Metadata()) as pictures:
        pictures.write(Frame(tmp_path / "a.jpg", IMAGE), found())
    detections.write(tmp_path)
    assert json.loads((tmp_path / "detections.json").read_text())[0]["category_id"] == 1
    assert cv2.imread(str(tmp_path / "out" / "a.jpg")).max() > 0


def test_pictures_of_equal_names_stay_apart(tmp_path):
    files = [tmp_path / name for name in ("a/1.jpg", "b/1.jpg", "b/1.tif", "b/1.PNG")]
    with Pictures(tmp_path / "out", files, METADATA) as pictures:
        for file in files:
            pictures.write(Frame(file, IMAGE), found())
    written = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
    assert written == {"a/1.jpg", "b/1.jpg", "b/1.tif.jpg", "b/1.PNG"}


def test_frames_become_videos(tmp_path):
    files = [tmp_path / "a.mp4", tmp_path / "b.avi"]
    with Pictures(tmp_path / "out", files, METADATA) as pictures:
        for number in range(3):
            pictures.write(Frame(files[0], IMAGE, number, 12.0), found())
        pictures.write(Frame(tmp_path / "between.png", IMAGE), found())
        for number in range(2):
            pictures.write(Frame(files[1], IMAGE, number, 25.0), found(masks=True))
    for name, frames, fps in (("a.mp4", 3, 12.0), ("b.avi.mp4", 2, 25.0)):
        read = list(read_frames(tmp_path / "out" / name))
        assert len(read) == frames and read[0].fps == fps and read[0].image.shape == IMAGE.shape
        assert read[-1].image.max() > 50, "drawn"


def test_inputs_are_not_replaced(tmp_path):
    files = [tmp_path / name for name in ("a.jpg", "b.png", "c.avi.mp4", "link.jpg")]
    for file in files[:3]:
        file.write_text("precious")
    files[3].symlink_to("a.jpg")
    with Pictures(tmp_path, files, METADATA) as pictures:
        for file in files:
            pictures.write(Frame(file, IMAGE, *((0, 25.0) if file.suffix == ".mp4" else ())), found())
    assert {*pictures.unwritten} == {*files}
    assert all("would replace an input; choose another output folder" in x for x in pictures.unwritten.values())
    assert all(file.read_text() == "precious" for file in files)


def test_pictures_have_the_names_of_links(tmp_path):
    """As in caches that keep files under their hashes."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "4f2a").touch()
    files = [tmp_path / "names" / name for name in ("cat.png", "sub/dog.png")]
    for file in files:
        file.parent.mkdir(parents=True)
        file.symlink_to(tmp_path / "blobs" / "4f2a")
    assert set(written(tmp_path / "out", files)) == {"cat.png", "sub/dog.png"}


def test_no_picture_replaces_another(tmp_path):
    """A file keeps its name, wherever it stands in the list."""
    names = ["x.bmp", "x.bmp.jpg", "x.bmp_2.jpg", "y.avi", "y.avi.mp4"]
    sizes = written(tmp_path / "out", [tmp_path / name for name in names])
    assert sizes == {"x.bmp_3.jpg": 8, "x.bmp.jpg": 16, "x.bmp_2.jpg": 24, "y.avi_2.mp4": 32, "y.avi.mp4": 40}


def written(folder: Path, files: Sequence[Path]) -> dict[str, int]:
    """Names of what is written for these files, and the widths: 8 times the place in the list."""
    with Pictures(folder, files, METADATA) as pictures:
        for i, file in enumerate(files, 1):
            is_video = file.suffix in VIDEO_SUFFIXES
            pictures.write(Frame(file, np.zeros((16, 8 * i, 3), np.uint8), *((0, 25.0) if is_video else ())), NOTHING)
    assert not pictures.unwritten
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): next(read_frames(path)).image.shape[1] for path in paths}


@pytest.mark.parametrize(
    "fps", [1e-3, 0.1, 14.985, 23.976, 29.97, 65.6, 119.88, 239.842, 1234.56, 65536.0, 90000.0, 1e6]
)
def test_every_rate_can_be_written(tmp_path, fps):
    """MPEG-4 takes few of the rates above 65.5 pictures per second, which other formats have."""
    file = tmp_path / "a.avi"
    with Pictures(tmp_path / "out", [file], METADATA) as pictures:
        for number in range(3):
            pictures.write(Frame(file, IMAGE, number, fps), found())
    assert not pictures.unwritten
    frames = list(read_frames(tmp_path / "out" / "a.avi.mp4"))
    assert len(frames) == 3
    assert frames[0].fps == pytest.approx(min(max(fps, 0.01), 65535), rel=1e-4)


def test_pictures_too_large_for_jpeg(tmp_path):
    file = tmp_path / "wide.tif"
    with Pictures(tmp_path / "out", [file], METADATA) as pictures:
        pictures.write(Frame(file, np.zeros((8, 70_000, 3), np.uint8)), NOTHING)
    assert not pictures.unwritten
    assert cv2.imread(str(tmp_path / "out" / "wide.tif.png")).shape == (8, 70_000, 3)


@pytest.mark.parametrize("name", ["a.jpg", "a.mp4"])
def test_what_cannot_be_written_is_noted_with_its_cause(tmp_path, name):
    """The other files are written."""
    good, full = (tmp_path / place / name for place in ("good", "full"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "full").touch()  # where a folder should be
    long = good.with_name("a" * 250 + (".avi" if name == "a.mp4" else ".tif"))
    files = [full, long, good]
    with Pictures(tmp_path / "out", files, METADATA) as pictures:
        for file in files:
            for number in range(3 if name == "a.mp4" else 1):
                pictures.write(Frame(file, IMAGE, *((number, 25.0) if name == "a.mp4" else ())), found())
    assert {*pictures.unwritten} == {full, long}
    assert "out/full: cannot be written (File exists); choose" in pictures.unwritten[full]
    assert "(File name too long)" in pictures.unwritten[long]
    assert len(list(read_frames(tmp_path / "out" / "good" / name))) == (3 if name == "a.mp4" else 1)


@pytest.mark.parametrize("shape", [(16, 8192, 3), (1, 1, 3)])
def test_videos_that_no_encoder_takes(tmp_path, shape):
    file, image = tmp_path / "a.avi", np.zeros(shape, np.uint8)
    with Pictures(tmp_path / "out", [file], METADATA) as pictures:
        for number in range(3):
            pictures.write(Frame(file, image, number, 25.0), NOTHING)
    assert f"a.avi.mp4: cannot be written (no encoder for {shape[1]} x {shape[0]} pixels" in pictures.unwritten[file]
    assert not list((tmp_path / "out").iterdir())


def test_full_disk(tmp_path):
    files = [tmp_path / name for name in ("a.png", "b.avi", "c.mp4")]
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with Pictures(tmp_path / "out", files, METADATA) as pictures:
            for file in files:
                pictures.write(Frame(file, noise, *(() if file.suffix == ".png" else (0, 25.0))), NOTHING)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {*pictures.unwritten} == {*files}
    assert all("choose another output folder or free some space" in x for x in pictures.unwritten.values())
