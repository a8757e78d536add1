"""Exported files in the place of models."""

import json

import cv2
import numpy as np
import torch

from la_det import cli
from la_det.export.exported import ExportedDetector, ExportedPredictor
from tests.deploy.made_up import METADATA, write


def image(height: int, width: int) -> dict:
    return {"image": torch.full((3, height, width), 50, dtype=torch.uint8)}


def test_takes_and_returns_what_detectron2_does(tmp_path):
    masks = np.ones((1, 3, 16, 16), np.float32)
    detector = ExportedDetector(write(tmp_path / "model.onnx", METADATA, masks=masks)).eval()
    first, second = detector([image(32, 48) | {"height": 64, "width": 96}, image(64, 64)])
    found = first["instances"]
    assert found.image_size == (64, 96)
    assert found.pred_boxes.tensor.tolist() == [[8, 16, 40, 48], [0, 0, 96, 64]]
    assert found.pred_classes.tolist() == [1, 0] and found.priors.tolist() == [7, 5]
    assert found.pred_masks.shape == (2, 64, 96)
    assert second["instances"].pred_boxes.tensor.tolist() == [[4, 8, 20, 24], [0, 0, 64, 32]]
    assert detector([]) == []


def test_predictor_takes_files_and_arrays(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 128, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "picture.png"), pixels)
    predictor = ExportedPredictor(write(tmp_path / "model.onnx", METADATA))
    assert predictor.metadata.thing_classes == ["left", "right"]
    batches = []
    predictor.detector.batch = lambda inputs: (
        batches.append(inputs) or type(predictor.detector).batch(predictor.detector, inputs)
    )
    for given in (pixels, tmp_path / "picture.png"):
        (found,) = predictor([given])
        assert found.image_size == (32, 128) and len(found) == 2
    (array,), (file,) = batches
    assert np.array_equal(array, pixels[:, :, ::-1]) and np.array_equal(array, file)


def test_demo_writes_the_ids_of_the_data_set(tmp_path):
    """The second class is its category 7."""
    cv2.imwrite(str(tmp_path / "picture.png"), np.zeros((64, 64, 3), np.uint8))
    file, output = write(tmp_path / "model.onnx", METADATA), tmp_path / "pictures"
    for flag in ("--onnx", "--exported"):
        argv = [flag, str(file), str(tmp_path / "picture.png"), "--output", str(output)]
        assert cli.run("detect", argv) == 0
        assert [d["category_id"] for d in json.loads((output / "detections.json").read_text())] == [7, 3]
        categories = json.loads((output / "images.json").read_text())["categories"]
        assert categories == [{"id": 3, "name": "left"}, {"id": 7, "name": "right"}]
