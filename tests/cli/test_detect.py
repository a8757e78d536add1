"""The command as a user runs it, on a folder of mixed files."""

import argparse
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from faster_coco_eval import COCO

from la_det.cli import build_parser
from la_det.cli.detect import run
from la_det.demo.detect import build_predictor, detect
from la_det.demo.inputs import read_frames
from la_det.errors import UserError

CONFIG = Path(__file__).parent / "configs" / "tiny_poto.py"
GOOD = {"colour.jpg": 1, "colour.png": 1, "grey.png": 1, "deep.png": 1, "alpha.png": 1, "clip.mp4": 5}
BAD = {"broken.jpg", "broken.mp4", "notes.txt"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pictures/` with files of all kinds, `broken/` with unreadable ones, `val.json` and `weights.pth`."""
    root = tmp_path_factory.mktemp("demo")
    for name in ("pictures", "broken"):
        (root / name).mkdir()
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    pictures = {
        "colour.jpg": image,
        "colour.png": image,
        "grey.png": image[:, :, 0],
        "deep.png": image.astype(np.uint16) * 257,
        "alpha.png": np.dstack([image, image[:, :, 0]]),
    }
    for name, picture in pictures.items():
        cv2.imwrite(str(root / "pictures" / name), picture)
    video = cv2.VideoWriter(str(root / "pictures" / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10.0, (64, 48))
    for shift in range(GOOD["clip.mp4"]):
        video.write(np.roll(image, shift, axis=1))
    video.release()
    (root / "broken" / "broken.jpg").write_bytes((root / "pictures" / "colour.jpg").read_bytes()[:900])
    (root / "broken" / "broken.mp4").write_bytes((root / "pictures" / "clip.mp4").read_bytes()[:200])
    (root / "broken" / "notes.txt").write_text("no picture")
    categories = [{"id": 3, "name": "left"}, {"id": 7, "name": "right"}]
    (root / "val.json").write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    torch.manual_seed(0)
    torch.save({"model": instantiate(LazyConfig.load(str(CONFIG)).model).state_dict()}, root / "weights.pth")
    return root


def parse(argv: list[str]) -> argparse.Namespace:
    return build_parser("detect", "demo.py").parse(argv)


def options(folder: Path) -> list[str]:
    everywhere = ["+model.inference.score_threshold=0", "+model.inference.max_detections=10"]
    return [f"dataloader.test.dataset.names={folder / 'val.json'}", *everywhere]


def arguments(folder: Path, *more: str) -> list[str]:
    start = ["--config-file", str(CONFIG), "--weights", str(folder / "weights.pth"), "--min-score", "0"]
    return [*start, *more, "--opts", *options(folder)]


def test_folder_of_mixed_files(folder, tmp_path, capsys):
    """Unreadable files are named, all others get pictures and detections."""
    argv = arguments(folder, str(folder / "pictures"), str(folder / "broken"), "--output", str(tmp_path))
    assert run(parse(argv)) == 1
    printed = capsys.readouterr()
    named = [line for line in printed.err.splitlines() if line.startswith("not done: ")]
    assert {Path(line.split(": ")[1]).name for line in named} == BAD
    assert "6 of 9 files done" in printed.out and "10 images" in printed.out
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == set(GOOD)

    truth = COCO(str(tmp_path / "images.json"))
    results = truth.loadRes(str(tmp_path / "detections.json"))
    frames = [Path(image["file_name"]).name for image in truth.imgs.values()]
    assert {name: frames.count(name) for name in frames} == GOOD
    assert all(results.imgToAnns[number] for number in truth.imgs)
    assert {detection["category_id"] for detection in results.anns.values()} == {3, 7}
    assert f"| all     | {len(results.anns):12d} |" in printed.out


def test_batches_of_any_size_give_the_same(folder, tmp_path):
    """All pictures have one size, so that none is padded."""
    written = []
    for size in ("1", "4", "100"):
        argv = arguments(folder, str(folder / "pictures"), "--output", str(tmp_path / size), "--batch-size", size)
        assert run(parse(argv)) == 0
        written.append(json.loads((tmp_path / size / "detections.json").read_text()))
    for other in written[1:]:
        assert len(other) == len(written[0])
        for a, b in zip(written[0], other, strict=True):
            assert a["image_id"] == b["image_id"]
            assert a["score"] == pytest.approx(b["score"], rel=1e-4)


def test_threshold_is_for_pictures_and_detections(folder, tmp_path):
    picture = folder / "pictures" / "colour.png"
    argv = arguments(folder, str(picture), "--output", str(tmp_path), "--min-score", "1.1")
    assert run(parse(argv)) == 0
    assert json.loads((tmp_path / "detections.json").read_text()) == []
    assert np.array_equal(cv2.imread(str(tmp_path / "colour.png")), cv2.imread(str(picture)))


def test_what_cannot_be_written_is_still_detected(folder, tmp_path, capsys):
    """As is the beginning of a damaged video."""
    names = ["clip.mp4", "colour.jpg", "colour.png", "deep.png"]
    for name in ("clip.mp4", "deep.png"):
        (tmp_path / "out" / name).mkdir(parents=True)  # where its picture should be
    cut = tmp_path / "cut.avi"
    video = cv2.VideoWriter(str(cut), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
    for picture in np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8):
        video.write(picture)
    video.release()
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    for name in names:
        (tmp_path / name).write_bytes((folder / "pictures" / name).read_bytes())
    files = [str(tmp_path / name) for name in ("clip.mp4", "cut.avi", *names[1:])]
    assert run(parse(arguments(folder, *files, "--output", str(tmp_path / "out")))) == 1
    printed = capsys.readouterr()
    named = [line for line in printed.err.splitlines() if line.startswith("not done: ")]
    assert [Path(line.split(": ")[1]).name for line in named] == ["cut.avi", "clip.mp4", "deep.png"]
    assert "2 of 5 files done" in printed.out
    found = read_detections(tmp_path / "out")
    assert {name: found[name] for name in names} == {name: GOOD[name] for name in names}
    assert 5 < found["cut.avi"] < 15
    assert len(list(read_frames(tmp_path / "out" / "cut.avi.mp4"))) == found["cut.avi"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_was_detected_before_an_interruption_is_kept(folder, tmp_path, error):
    predictor, calls = build_predictor(str(CONFIG), str(folder / "weights.pth"), "cpu", options(folder)), []

    def interrupted(images):
        calls.append(images)
        if len(calls) == 3:
            raise error
        return predictor(images)

    interrupted.metadata = predictor.metadata
    files = [folder / "pictures" / name for name in GOOD]
    with pytest.raises(error):
        detect(interrupted, files, tmp_path, 0.0, batch_size=1)
    assert read_detections(tmp_path) == dict.fromkeys(list(GOOD)[:2], 1)


def read_detections(output: Path) -> Counter[str]:
    """Number of images with detections of each file."""
    truth = COCO(str(output / "images.json"))
    results = truth.loadRes(str(output / "detections.json"))
    return Counter(Path(image["file_name"]).name for i, image in truth.imgs.items() if results.imgToAnns[i])


def test_nothing_readable(folder, tmp_path, capsys):
    argv = arguments(folder, str(folder / "broken"), "--output", str(tmp_path))
    assert run(parse(argv)) == 1
    assert "0 of 3 files done" in capsys.readouterr().out


def test_no_images_at_a_time(folder):
    with pytest.raises(UserError, match="--batch-size 0: at least one image"):
        run(parse(arguments(folder, str(folder / "pictures"), "--batch-size", "0")))


def test_device_of_a_config(folder):
    args = parse([*arguments(folder, "picture.png", "--device", "cpu"), "train.device=nowhere"])
    predictor = build_predictor(args.config, args.weights, args.device, args.opts)
    assert next(predictor.model.parameters()).device.type == "cpu"


@pytest.mark.parametrize("inputs", ["nowhere", "empty"])
def test_no_files(folder, tmp_path, inputs):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"{inputs}: no "):
        run(parse(arguments(folder, str(tmp_path / inputs))))


def test_unknown_option_of_the_config(folder):
    argv = arguments(folder, str(folder / "pictures"))
    with pytest.raises(UserError, match="the config has no such key"):
        run(parse([*argv, "model.nothing=1"]))


def test_config_and_weights_by_place(folder, tmp_path):
    """`la-det detect` does what the tool does."""
    inputs = [str(folder / "pictures" / name) for name in ("colour.png", "grey.png")]
    by_flags = arguments(folder, *inputs, "--output", str(tmp_path / "flags"))
    assert run(parse(by_flags)) == 0
    opts = by_flags[by_flags.index("--opts") :]
    places = [str(CONFIG), str(folder / "weights.pth"), *inputs]
    argv = [*places, "--min-score", "0", "--output", str(tmp_path / "places"), *opts]
    assert run(build_parser("detect").parse(argv)) == 0
    found = [(tmp_path / name / "detections.json").read_text() for name in ("flags", "places")]
    assert found[0] == found[1] != "[]"


@pytest.mark.parametrize("argv", [["CONFIG"], ["CONFIG", "w.pth"], ["--onnx", "a.onnx", "a.png", "--opts", "a=1"]])
def test_places_that_are_missing_or_too_many(argv):
    with pytest.raises(UserError, match="give either config and weights, or --exported|give CONFIG, WEIGHTS and at"):
        run(build_parser("detect").parse(argv))


@pytest.mark.parametrize("more", [[], ["--onnx", "a.onnx", "--weights", "b.pth"], ["--config-file", "POTO"]])
def test_either_config_or_onnx(more):
    with pytest.raises(UserError, match="give either config and weights, or --exported FILE"):
        run(parse(["picture.png", *more]))
