"""Exported files find what the eager model finds in images of many sizes, and all find it in every batch."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from detectron2.structures import Instances

from la_det import Predictor, model_zoo
from la_det.benchmark.deploy import difference, images_of_sizes
from la_det.errors import UserError
from la_det.export.export import export
from la_det.export.exported import ExportedPredictor
from la_det.export.formats import Options
from la_det.export.openvino_files import onnx_to_openvino
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
    """Shapes images of 20 sizes, in BGR."""
    return [x["image"].numpy().transpose(1, 2, 0)[:, :, ::-1].copy() for x in images_of_sizes(sum(BATCHES))]


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEMES)
def test_runtimes_find_the_same(name: str, images: list[np.ndarray], tmp_path: Path) -> None:
    config = model_zoo.get_config(name)
    config.train.device = "cpu"
    weights = spread_weights(config, tmp_path / "weights.pth")
    file = tmp_path / "model.onnx"
    metadata = export(config, name, weights, file, Options())
    without = "queries" if "queries" in config.model.inference else "none"
    assert metadata.nms == ("graph" if config.model.inference.get("nms_threshold") else without)
    eager, exported = Predictor(config, weights), [ExportedPredictor(file)]
    if find_spec("openvino"):
        onnx_to_openvino(file, metadata, file.with_suffix(".xml"))
        exported.append(ExportedPredictor(file.with_suffix(".xml")))
    remaining = iter(images)
    for size in BATCHES:
        batch = [next(remaining) for _ in range(size)]
        expected = eager(batch)
        assert min(map(len, expected)) > 5
        for predictor in exported:
            assert_same(expected, predictor(batch))
    for predictor in (eager, *exported):
        for chosen in (images[:12], images[:3] * 4):  # 12 sizes, and three
            assert_independent_of_batches(predictor, chosen)


@pytest.mark.slow
def test_deformable_convolutions(images: list[np.ndarray], tmp_path: Path) -> None:
    """A whole model with DCNv2 in backbone and towers."""
    name = "ATSS/atss_dcnv2_r50_fpn_1x_coco"
    config = model_zoo.get_config(name)
    config.train.device, config.dataloader.test.mapper.augmentations = "cpu", []
    config.model.pixel_std = [60.0] * 3  # offsets of some cells, as after a training; of hundreds, rounding decides
    weights = spread_weights(config, tmp_path / "weights.pth")
    file = tmp_path / "model.onnx"
    with pytest.raises(UserError, match="--opset 18: this model's torchvision::deform_conv2d needs --opset 19"):
        export(config, name, weights, file, Options(opset=18))
    metadata = export(config, name, weights, file, Options(opset=19))
    eager, exported = Predictor(config, weights), [ExportedPredictor(file)]
    if find_spec("openvino"):
        onnx_to_openvino(file, metadata, file.with_suffix(".xml"))
        exported.append(ExportedPredictor(file.with_suffix(".xml")))
    expected = eager(images[:6])
    assert min(map(len, expected)) > 5
    for predictor in exported:
        assert_same(expected, predictor(images[:6]))


def assert_independent_of_batches(predictor: Predictor, images: list[np.ndarray]) -> None:
    alone = [predictor([image])[0] for image in images]
    for size in (4, 12):
        batches = [images[i : i + size] for i in range(0, len(images), size)]
        assert_same(alone, [x for batch in batches for x in predictor(batch)])


def assert_same(expected: list[Instances], found: list[Instances]) -> None:
    """The same (prior, class) pairs, except such as tie with the last, with the same boxes, scores and masks."""
    for left, right in zip(expected, found, strict=True):
        far = difference(left, right, SCORE_ERROR)
        print(far)
        assert far.missing == 0 and far.boxes <= BOX_ERROR and far.scores <= SCORE_ERROR and far.masks < 1e-4
        assert far.common > 0.9 * len(left)
