"""ONNX Runtime finds what the eager model finds in images of many sizes, and both find it in every batch."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import Instances

from la_det import Predictor, model_zoo
from la_det.data.shapes import SHAPES, draw_scene
from la_det.export.export import Options, export
from la_det.export.onnx_detector import OnnxPredictor
from tests.export.spread import spread_weights

SCHEMES = [
    "POTO/poto_r18_fpn_shapes_tiny",
    "POTO/poto_3dmf_r18_fpn_shapes_tiny",
    "O2F/o2f_r18_fpn_shapes_tiny",
    "O2F/o2f_condinst_r18_fpn_shapes_tiny",
    "DATE/date_f_r18_fpn_shapes_tiny",
    "DW/dw_r18_fpn_shapes_tiny",
    "ATSS/atss_r18_fpn_shapes_tiny",
    "LLA/lla_r18_fpn_shapes_crowd",
    "OTA/ota_r18_fpn_shapes_tiny",
    "OTA/simota_r18_fpn_shapes_tiny",
    "OneNet/onenet_retinanet_r18_fpn_shapes_tiny",
    "PAA/paa_r18_fpn_shapes_tiny",
    "AutoAssign/autoassign_r18_fpn_shapes_tiny",
    "TOOD/tood_r18_fpn_shapes_tiny",
    "DATE/tal_dual_detached_r18_fpn_shapes_tiny",
    "DDQ/ddq_fcn_r18_fpn_shapes_tiny",
    "POTO/poto_distinct_r18_fpn_shapes_crowd",
]
BATCHES = (1, 1, 1, 1, 1, 1, 2, 3, 4, 5)  # 20 images
BOX_ERROR, SCORE_ERROR = 1e-2, 1e-4


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Shapes images, resized to sides between 40 and 230 pixels, each ratio different."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(40, 231, (sum(BATCHES), 2)).tolist()
    return [cv2.resize(draw_scene(SHAPES["shapes_tiny"], "val", i)[0], tuple(size)) for i, size in enumerate(sizes)]


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEMES)
def test_onnx_runtime_finds_the_same(name: str, images: list[np.ndarray], tmp_path: Path) -> None:
    config = model_zoo.get_config(name)
    config.train.device = "cpu"
    weights = spread_weights(config, tmp_path / "weights.pth")
    file = tmp_path / "model.onnx"
    metadata = export(config, name, weights, file, Options())
    without = "queries" if "queries" in config.model.inference else "none"
    assert metadata.nms == ("graph" if config.model.inference.get("nms_threshold") else without)
    eager, exported = Predictor(config, weights), OnnxPredictor(file)
    remaining = iter(images)
    for size in BATCHES:
        batch = [next(remaining) for _ in range(size)]
        for expected, found in zip(eager(batch), exported(batch), strict=True):
            assert len(expected) > 5
            assert_same(expected, found)
    for predictor in (eager, exported):
        for chosen in (images[:12], images[:3] * 4):  # 12 sizes, and three
            assert_independent_of_batches(predictor, chosen)


def assert_independent_of_batches(predictor: Predictor, images: list[np.ndarray]) -> None:
    alone = [predictor([image])[0] for image in images]
    for size in (4, 12):
        batches = [images[i : i + size] for i in range(0, len(images), size)]
        for expected, found in zip(alone, (x for batch in batches for x in predictor(batch)), strict=True):
            assert_same(expected, found)


def assert_same(expected: Instances, found: Instances) -> None:
    """The same (prior, class) pairs, except such as tie with the last, with the same boxes, scores and masks."""
    rows = [{(p, c): i for i, (p, c) in enumerate(pairs(x))} for x in (expected, found)]
    common = [(rows[0][pair], rows[1][pair]) for pair in rows[0] if pair in rows[1]]
    last = max(x.scores.min().item() for x in (expected, found))
    for instances, mine, others in ((expected, rows[0], rows[1]), (found, rows[1], rows[0])):
        assert all(instances.scores[i] <= last + SCORE_ERROR for pair, i in mine.items() if pair not in others)
    left, right = (torch.tensor(side) for side in zip(*common, strict=True))
    expected, found = expected[left], found[right]
    assert len(common) > 0.9 * len(rows[0])
    boxes = (expected.pred_boxes.tensor - found.pred_boxes.tensor).abs().max()
    scores = (expected.scores - found.scores).abs().max()
    print(f"{len(common)} common, boxes {boxes:.1e} px, scores {scores:.1e}")
    assert boxes <= BOX_ERROR and scores <= SCORE_ERROR
    if expected.has("pred_masks"):
        assert (expected.pred_masks != found.pred_masks).float().mean() < 1e-4


def pairs(instances: Instances) -> list[tuple[int, int]]:
    return list(zip(instances.priors.tolist(), instances.pred_classes.tolist(), strict=True))
