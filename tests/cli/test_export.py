"""The command as a user runs it."""

import json
import sys
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate

from la_det import Predictor, cli, model_zoo
from la_det.cli import export
from la_det.data.shapes import SHAPES, draw_scene
from la_det.deploy import Detector
from la_det.deploy.metadata import NMS
from la_det.deploy.runtimes import RUNTIMES
from la_det.engine.setup import load_config
from la_det.errors import UserError
from la_det.export.export import check_size
from la_det.export.formats import WRITERS

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
def test_onnx_of_fixed_size_runs_in_the_demo(arguments, precision, tmp_path, capsys, recwarn):
    file = tmp_path / "new folder" / "poto.onnx"
    run(arguments, "--output", str(file), "--batch-size", "2", "--image-size", "64", "96", *precision)
    assert "2 classes, no NMS" in capsys.readouterr().out
    assert not [warning for warning in recwarn if "treespec" in str(warning.message)]
    picture = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "picture.png"), picture)
    output = tmp_path / "pictures"
    argv = ["--onnx", str(file), str(tmp_path / "picture.png"), "--output", str(output), "--min-score", "0"]
    assert cli.run("detect", argv) == 0
    assert len(json.loads((output / "detections.json").read_text())) > 0
    categories = json.loads((output / "images.json").read_text())["categories"]
    assert [category["name"] for category in categories] == ["left", "right"]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["pt2", "xml"])
def test_other_runtimes_with_free_sizes(arguments, suffix, tmp_path):
    if suffix == "xml":
        pytest.importorskip("openvino")
    run(arguments, "--output", str(tmp_path / f"poto.{suffix}"))
    assert_detects_as_the_model(arguments, tmp_path / f"poto.{suffix}")


def test_torchscript(arguments, tmp_path, capsys):
    run(arguments, "--output", str(tmp_path / "poto.pt"))
    assert "poto.pt: 2 classes, no NMS" in capsys.readouterr().out
    assert_detects_as_the_model(arguments, tmp_path / "poto.pt")


def assert_detects_as_the_model(arguments, file: Path) -> None:
    """Images of two sizes, of which one has one row of the coarsest level."""
    detector = Detector(file, allow_code=True)
    assert detector.details.classes == ("left", "right") and detector.details.category_ids == (3, 7)
    assert (detector.runtime.batch_size, detector.runtime.image_size) == (None, None)
    _, config, _, weights, _, *options = arguments
    predictor = Predictor(load_config(config, [*options, "train.device=cpu"]), weights)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((160, 190), (60, 90), (60, 90))]
    for expected, found in zip(predictor(images), detector(images), strict=True):
        assert len(found) == len(expected) > 0
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
        np.testing.assert_allclose(found.boxes, expected.pred_boxes.tensor, atol=1e-2)


def test_fixed_sizes_of_torchscript(arguments, tmp_path):
    run(arguments, "--output", str(tmp_path / "poto.pt"), "--batch-size", "2", "--image-size", "64", "96")
    detector = Detector(tmp_path / "poto.pt", allow_code=True)
    assert (detector.runtime.batch_size, detector.runtime.image_size) == (2, (64, 96))
    assert len(detector([np.zeros((70, 90, 3), np.uint8)])) == 1


@pytest.mark.slow
def test_int8(arguments, tmp_path):
    """Convolutions compute in int8, and what is found is about the same."""
    pytest.importorskip("nncf")
    files = [tmp_path / name for name in ("float.xml", "int8.xml")]
    int8 = ["--int8", "--calibration", "shapes_tiny_val", "--calibration-images", "8"]
    for file, more in zip(files, ([], int8), strict=True):
        run(arguments, "--output", str(file), *more)
    image = draw_scene(SHAPES["shapes_tiny"], "val", 0)[0]
    found = [Detector(file)([image])[0].scores[:10] for file in files]
    assert 0 < np.abs(found[0] - found[1]).max() < 0.1
    assert files[1].with_suffix(".bin").stat().st_size < 0.5 * files[0].with_suffix(".bin").stat().st_size


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--raw-candidates"], "need no NMS; leave --raw-candidates out"),
        (["--image-size", "64", "100"], "--image-size 64 100: sides must be multiples of 32"),
        (["--batch-size", "0"], "--batch-size 0: at least one image"),
        (["--opset", "17"], "--opset 17: files are written in opset 18 to 20"),
        (["--format", "openvino"], "poto.onnx: files of the format openvino end with .xml"),
        (["--int8"], "--int8: only OpenVINO files"),
    ],
)
def test_options_that_do_not_fit(arguments, more, message, tmp_path):
    refuses(arguments, tmp_path / "poto.onnx", message, *more)


def refuses(arguments: list[str], output: Path, message: str, *more: str) -> None:
    with pytest.raises(UserError, match=message):
        run(arguments, "--output", str(output), *more)
    assert not output.exists()


def test_int8_without_other_precisions(arguments, tmp_path):
    refuses(arguments, tmp_path / "poto.xml", "--int8 does not go with", "--int8", "--half")


@pytest.mark.parametrize("name", ["y", "y.foo", "y.onnx.gz", "y.ONNX", "y."])
def test_names_of_no_format(arguments, name, tmp_path):
    """`la-det detect` could not open these files."""
    message = f"{name}: its suffix .* one of .onnx .onnx., .xml .openvino., .pt2 .torch-export., .pt .torchscript."
    refuses(arguments, tmp_path / name, message)
    refuses(arguments, tmp_path / name, message, "--format", "onnx")


@pytest.mark.parametrize(("suffix", "name"), export.FORMATS.items())
def test_a_name_of_another_format(suffix, name, tmp_path):
    assert export.format_of(Path(f"x{suffix}"), None) == export.format_of(Path(f"x{suffix}"), name) == name
    for other in set(export.FORMATS.values()) - {name}:
        with pytest.raises(UserError, match=f"x{suffix}: files of the format {other} end with "):
            export.format_of(Path(f"x{suffix}"), other)


@pytest.mark.parametrize(("package", "more"), [("openvino", []), ("nncf", ["--int8"])])
def test_missing_packages(arguments, package, more, tmp_path, monkeypatch):
    if package == "nncf":
        pytest.importorskip("openvino")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"{package} is missing: pip install 'la_det.openvino.'"):
        run(arguments, "--output", str(tmp_path / "poto.xml"), *more)


def test_swin_is_asked_for_its_size():
    pytest.importorskip("timm")
    config = model_zoo.get_config("O2F/o2f_swin_t_fpn_1x_coco")
    model = instantiate(config.model)
    with pytest.raises(UserError, match="o2f_swin: Swin's windows are laid out for one size; give --image-size H W"):
        check_size(model, "o2f_swin", None)
    check_size(model, "o2f_swin", (256, 320))


def test_own_data_with_other_classes(arguments, tmp_path):
    with pytest.raises(UserError, match="val.json: the data set has 2 classes, the config 3"):
        run([*arguments, "model.num_classes=3"], "--output", str(tmp_path / "poto.onnx"))


def test_models_of_others(tmp_path):
    names = ["--config-file", "LLA/faster_rcnn_r50_fpn_30k_crowdhuman", "--weights", "none.pth"]
    with pytest.raises(UserError, match="only AssignmentDetector can be exported"):
        run(names, "--output", str(tmp_path / "x.onnx"))


def test_every_format_and_kind_of_nms_is_known():
    assert WRITERS.keys() == set(export.FORMATS.values()) and RUNTIMES.keys() == export.FORMATS.keys()
    assert export.NMS.keys() == set(get_args(NMS))


def test_all_by_place(arguments, tmp_path, capsys):
    config, weights, *opts = (x for x in arguments if x not in ("--config-file", "--weights", "--opts"))
    output = tmp_path / "poto.pt"
    assert cli.run("export", [config, weights, str(output), "--format", "torchscript", *opts]) == 0
    assert "poto.pt: 2 classes, no NMS" in capsys.readouterr().out
