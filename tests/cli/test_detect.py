"""The command as a user runs it, on a folder of mixed files."""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from faster_coco_eval import COCO

from la_det.cli import build_parser
from la_det.cli.detect import run
from la_det.demo.detect import build_predictor
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


def arguments(folder: Path, *more: str) -> list[str]:
    everywhere = ["+model.inference.score_threshold=0", "+model.inference.max_detections=10"]
    options = [f"dataloader.test.dataset.names={folder / 'val.json'}", *everywhere]
    start = ["--config-file", str(CONFIG), "--weights", str(folder / "weights.pth"), "--min-score", "0"]
    return [*start, *more, "--opts", *options]


def test_folder_of_mixed_files(folder, tmp_path, capsys):
    """Unreadable files are named and skipped, all others get pictures and detections."""
    argv = arguments(folder, str(folder / "pictures"), str(folder / "broken"), "--output", str(tmp_path))
    assert run(parse(argv)) == 1
    printed = capsys.readouterr()
    skipped = [line for line in printed.err.splitlines() if line.startswith("skipped: ")]
    assert {Path(line.split(": ")[1]).name for line in skipped} == BAD
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
