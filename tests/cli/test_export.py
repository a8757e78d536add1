"""The command as a user runs it."""

import json
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate

from la_det import cli
from la_det.cli import export
from la_det.errors import UserError
from la_det.export.formats import WRITERS
from la_det.export.metadata import NMS

CONFIG = Path(__file__).parent / "configs" / "tiny_poto.py"


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The small detector with random weights, and class names."""
    root = tmp_path_factory.mktemp("export")
    categories = [{"id": 3, "name": "left"}, {"id": 7, "name": "right"}]
    (root / "val.json").write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    torch.manual_seed(0)
    torch.save({"model": instantiate(LazyConfig.load(str(CONFIG)).model).state_dict()}, root / "weights.pth")
    options = [f"dataloader.test.dataset.names={root / 'val.json'}", "+model.inference.score_threshold=0"]
    return ["--config-file", str(CONFIG), "--weights", str(root / "weights.pth"), "--opts", *options]


def run(arguments: list[str], *more: str) -> None:
    export.run(cli.build_parser("export", "export_model.py").parse([*more, *arguments]))


@pytest.mark.slow
@pytest.mark.parametrize("precision", [[], ["--half"]])
def test_onnx_of_fixed_size_runs_in_the_demo(arguments, precision, tmp_path, capsys):
    file = tmp_path / "new folder" / "poto.onnx"
    run(arguments, "--output", str(file), "--batch-size", "2", "--image-size", "64", "96", *precision)
    assert "2 classes, no NMS" in capsys.readouterr().out
    picture = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "picture.png"), picture)
    output = tmp_path / "pictures"
    argv = ["--onnx", str(file), str(tmp_path / "picture.png"), "--output", str(output), "--min-score", "0"]
    assert cli.run("detect", argv) == 0
    assert len(json.loads((output / "detections.json").read_text())) > 0
    categories = json.loads((output / "images.json").read_text())["categories"]
    assert [category["name"] for category in categories] == ["left", "right"]


@pytest.mark.slow
def test_torch_export_with_free_sizes(arguments, tmp_path):
    file = tmp_path / "poto.pt2"
    run(arguments, "--output", str(file), "--format", "torch-export")
    files = {"la_det.json": ""}
    program = torch.export.load(file, extra_files=files)
    details = json.loads(files["la_det.json"])
    assert json.loads(details["classes"]) == ["left", "right"] and json.loads(details["category_ids"]) == [3, 7]
    for size, guards in (((1, 160, 192), True), ((3, 64, 96), False)):  # see docs/export.md
        boxes, *_ = program.module(check_guards=guards)(torch.zeros(size[0], 3, *size[1:]))
        assert boxes.shape == (size[0], boxes.shape[1], 4)


def test_torchscript(arguments, tmp_path, capsys):
    run(arguments, "--output", str(tmp_path / "poto.pt"), "--format", "torchscript")
    assert "poto.pt: 2 classes, no NMS" in capsys.readouterr().out
    files = {"la_det.json": ""}
    graph = torch.jit.load(tmp_path / "poto.pt", _extra_files=files)
    assert graph(torch.zeros(1, 3, 64, 96))[0].shape[0] == 1
    assert json.loads(json.loads(files["la_det.json"])["category_ids"]) == [3, 7]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--raw-candidates"], "need no NMS; leave --raw-candidates out"),
        (["--image-size", "64", "100"], "--image-size 64 100: sides must be multiples of 32"),
        (["--batch-size", "0"], "--batch-size 0: at least one image"),
    ],
)
def test_options_that_do_not_fit(arguments, more, message, tmp_path):
    with pytest.raises(UserError, match=message):
        run(arguments, "--output", str(tmp_path / "poto.onnx"), *more)
    assert not (tmp_path / "poto.onnx").exists()


def test_own_data_with_other_classes(arguments, tmp_path):
    with pytest.raises(UserError, match="val.json: the data set has 2 classes, the config 3"):
        run([*arguments, "model.num_classes=3"], "--output", str(tmp_path / "poto.onnx"))


def test_models_of_others(tmp_path):
    names = ["--config-file", "LLA/faster_rcnn_r50_fpn_30k_crowdhuman", "--weights", "none.pth"]
    with pytest.raises(UserError, match="only AssignmentDetector can be exported"):
        run(names, "--output", str(tmp_path / "x.onnx"))


def test_every_format_and_kind_of_nms_is_known():
    assert sorted(WRITERS) == list(export.FORMATS)
    assert export.NMS.keys() == set(get_args(NMS))


def test_all_by_place(arguments, tmp_path, capsys):
    config, weights, *opts = (x for x in arguments if x not in ("--config-file", "--weights", "--opts"))
    output = tmp_path / "poto.pt"
    assert cli.run("export", [config, weights, str(output), "--format", "torchscript", *opts]) == 0
    assert "poto.pt: 2 classes, no NMS" in capsys.readouterr().out
