import numpy as np
import pytest
from detectron2.config import instantiate

from la_det import model_zoo
from la_det.benchmark.analysis import PARTS, analyze
from la_det.predictor import Predictor

IMAGE = np.zeros((48, 64, 3), np.uint8)


def parameters(module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


@pytest.mark.parametrize("name", ["DATE/date_f_r18_fpn_shapes_tiny", "O2F/o2f_condinst_r18_fpn_shapes_tiny"])
def test_counts_what_inference_needs(name):
    """Against the model itself: the second branch or the semantic branch belongs to training."""
    config = model_zoo.get_config(name)
    whole = instantiate(config.model)
    config.train.device = "cpu"
    analysis = analyze(Predictor(config, None), IMAGE, repeats=2)
    assert sum(analysis.parameters.values()) + analysis.training_parameters == pytest.approx(parameters(whole))
    assert analysis.training_parameters > 0
    assert analysis.parameters["head"] == pytest.approx(parameters(whole.inference_only().head))
    assert tuple(analysis.milliseconds) == PARTS and min(analysis.milliseconds.values()) > 0
    assert min(analysis.giga_flops.values()) > 0


def test_input_is_as_the_test_augmentation_makes_it():
    config = model_zoo.get_config("POTO/poto_r18_fpn_shapes_tiny")
    config.dataloader.test = model_zoo.get_config("POTO/poto_r50_fpn_3x_ms_coco").dataloader.test
    config.dataloader.test.mapper.augmentations[0].short_edge_length = 90
    config.dataloader.test.mapper.image_format = "RGB"
    config.dataloader.test.dataset.names = "shapes_tiny_val"
    config.train.device = "cpu"
    analysis = analyze(Predictor(config, None), IMAGE, repeats=1)
    assert analysis.input_size == (96, 128), "90 x 120, padded to a multiple of 32"
