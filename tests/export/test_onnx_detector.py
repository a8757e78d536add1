"""What surrounds the graph, with hand-made graphs that always find the same."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from la_det import cli
from la_det.errors import UserError
from la_det.export.metadata import ExportMetadata
from la_det.export.onnx_detector import OnnxDetector, OnnxPredictor

METADATA = ExportMetadata(
    la_det="0",
    config="made/up",
    classes=("left", "right"),
    category_ids=(3, 7),
    pixel_mean=(10.0, 20.0, 30.0),
    pixel_std=(1.0, 2.0, 4.0),
    input_format="RGB",
    size_divisibility=32,
    short_edge=None,
    max_size=None,
    score_threshold=0.05,
    nms="none",
    nms_threshold=None,
    max_detections=100,
)
# Two of three detections exist.
FOUND = {
    "boxes": np.array([[[4, 8, 20, 24], [0, 0, 64, 32], [9, 9, 9, 9]]], np.float32),
    "scores": np.array([[0.9, 0.4, 0.0]], np.float32),
    "classes": np.array([[1, 0, 0]]),
    "priors": np.array([[7, 5, 3]]),
    "counts": np.array([2]),
}


def write(path: Path, metadata: ExportMetadata | None, batch="batch", height="height", width="width", **more) -> Path:
    """A graph that finds FOUND and `more` in every image."""
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, height, width])
    nodes = [helper.make_node("Shape", ["images"], ["n"], start=0, end=1)]
    outputs, constants = [], []
    for name, value in {**FOUND, **more}.items():
        constants.append(numpy_helper.from_array(value, f"{name}_1"))
        ones = numpy_helper.from_array(np.ones(value.ndim - 1, np.int64), f"{name}_ones")
        constants.append(ones)
        nodes.append(helper.make_node("Concat", ["n", f"{name}_ones"], [f"{name}_repeats"], axis=0))
        nodes.append(helper.make_node("Tile", [f"{name}_1", f"{name}_repeats"], [name]))
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        outputs.append(helper.make_tensor_value_info(name, kind, [None] * value.ndim))
    graph = helper.make_graph(nodes, "made_up", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    if metadata is not None:
        helper.set_model_props(model, metadata.to_strings())
    onnx.save(model, path)
    return path


def image(height: int, width: int) -> dict:
    return {"image": torch.full((3, height, width), 50, dtype=torch.uint8)}


def test_normalises_and_pads(tmp_path):
    detector = OnnxDetector(write(tmp_path / "model.onnx", METADATA))
    batch = detector.preprocess([image(20, 40)["image"], image(33, 8)["image"]])
    assert batch.shape == (2, 3, 64, 64)
    assert batch[0, :, 19, 39].tolist() == [40.0, 15.0, 5.0]
    assert (batch[0, :, 20:] == 0).all() and (batch[1, :, :, 8:] == 0).all() and (batch[1, :, 32] != 0).any()


def test_detections_in_the_wanted_size(tmp_path):
    detector = OnnxDetector(write(tmp_path / "model.onnx", METADATA)).eval()
    first, second = detector([image(32, 48) | {"height": 64, "width": 96}, image(64, 64)])
    found = first["instances"]
    assert found.image_size == (64, 96)
    assert found.pred_boxes.tensor.tolist() == [[8, 16, 40, 48], [0, 0, 96, 64]]
    assert found.pred_classes.tolist() == [1, 0] and found.priors.tolist() == [7, 5]
    assert second["instances"].pred_boxes.tensor.tolist() == [[4, 8, 20, 24], [0, 0, 64, 32]]
    assert detector([]) == []


def test_no_image_is_padded_for_the_sake_of_another(tmp_path, monkeypatch):
    detector, shapes = OnnxDetector(write(tmp_path / "model.onnx", METADATA)), []
    run = detector.run
    monkeypatch.setattr(detector, "run", lambda images, sizes: shapes.append(tuple(images.shape)) or run(images, sizes))
    found = detector([image(20, 40), image(64, 64), image(32, 33)])
    assert sorted(shapes) == [(1, 3, 64, 64), (2, 3, 32, 64)]
    assert [x["instances"].image_size for x in found] == [(20, 40), (64, 64), (32, 33)]


def test_fixed_batch_and_size(tmp_path):
    """Batches are filled up or split, and predictors make images fit."""
    path = write(tmp_path / "model.onnx", METADATA, batch=2, height=32, width=64)
    detector = OnnxDetector(path)
    assert (detector.batch_size, detector.image_size) == (2, (32, 64))
    assert detector.preprocess([image(32, 32)["image"]]).shape == (2, 3, 32, 64)
    assert len(detector([image(32, 64)] * 5)) == 5
    with pytest.raises(UserError, match="33 x 40 pixels is too large for this file's 32 x 64"):
        detector([image(33, 40)])
    (found,) = OnnxPredictor(path)([np.zeros((64, 128, 3), np.uint8)])
    assert found.image_size == (64, 128)
    assert found.pred_boxes.tensor[0].tolist() == [8, 16, 40, 48]


def test_masks(tmp_path):
    masks = np.zeros((1, 3, 16, 16), np.float32)
    masks[0, 1, :8] = 1.0
    detector = OnnxDetector(write(tmp_path / "model.onnx", METADATA, masks=masks))
    (result,) = detector([image(64, 64)])
    pasted = result["instances"].pred_masks
    assert pasted.shape == (2, 64, 64) and pasted.dtype == torch.bool
    assert not pasted[0].any()
    assert pasted[1, :28].all() and not pasted[1, 36:].any()


def test_predictor_knows_classes_and_resizing(tmp_path):
    path = write(tmp_path / "model.onnx", replace(METADATA, short_edge=64, max_size=100))
    predictor = OnnxPredictor(path)
    assert predictor.metadata.thing_classes == ["left", "right"]
    (found,) = predictor([np.zeros((32, 128, 3), np.uint8)])  # 25 x 100
    torch.testing.assert_close(found.pred_boxes.tensor[0], torch.tensor([4 * 1.28, 8 * 1.28, 20 * 1.28, 24 * 1.28]))


def test_demo_writes_the_ids_of_the_data_set(tmp_path):
    """The second class is its category 7."""
    cv2.imwrite(str(tmp_path / "picture.png"), np.zeros((64, 64, 3), np.uint8))
    onnx_file, output = write(tmp_path / "model.onnx", METADATA), tmp_path / "pictures"
    argv = ["--onnx", str(onnx_file), str(tmp_path / "picture.png"), "--output", str(output)]
    assert cli.run("detect", argv) == 0
    assert [d["category_id"] for d in json.loads((output / "detections.json").read_text())] == [7, 3]
    categories = json.loads((output / "images.json").read_text())["categories"]
    assert categories == [{"id": 3, "name": "left"}, {"id": 7, "name": "right"}]


def test_files_that_cannot_be_used(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="absent.onnx: no such file"):
        OnnxDetector(tmp_path / "absent.onnx")
    with monkeypatch.context() as without, pytest.raises(UserError, match="onnxruntime is missing: pip install"):
        without.setitem(sys.modules, "onnxruntime", None)
        OnnxDetector(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(UserError, match="text.onnx: no ONNX file"):
        OnnxDetector(tmp_path / "text.onnx")
    with pytest.raises(UserError, match="other.onnx: no metadata"):
        OnnxDetector(write(tmp_path / "other.onnx", None))
    with pytest.raises(UserError, match="raw.onnx: its outputs are candidates before NMS"):
        OnnxDetector(write(tmp_path / "raw.onnx", replace(METADATA, nms="outside")))
