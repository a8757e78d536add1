"""Mask probabilities of detections, and masks in the size of the output."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from detectron2.structures import Instances

from la_det.modeling import mask_inference as module
from la_det.modeling.layers.aligned_bilinear import aligned_bilinear
from la_det.modeling.mask_inference import MaskInference, paste_masks
from la_det.structures import DensePredictions, LTRBCodec, PointGenerator

GRIDS = [(8, 12), (4, 6)]


@pytest.fixture
def predictions() -> DensePredictions:
    torch.manual_seed(0)
    priors = PointGenerator(strides=(8, 16))(GRIDS, torch.device("cpu"))
    maps = {"controller": [torch.randn(2, 169, *size) * 0.5 for size in GRIDS]}
    return DensePredictions(priors, LTRBCodec(), maps, {"mask_features": torch.randn(2, 8, *GRIDS[0])})


def pasted(probabilities: torch.Tensor, image_size: tuple[int, int], output_size: tuple[int, int]) -> torch.Tensor:
    instances = Instances(output_size, mask_probabilities=probabilities)
    paste_masks(instances, image_size, 4)
    assert not instances.has("mask_probabilities")
    return instances.pred_masks


def test_each_detection_is_read_from_its_image(predictions):
    prior = torch.tensor([[3, 50, 118], [118, 3, 50]])
    both = MaskInference()(predictions, prior)
    assert both.shape == (2, 3, 16, 24)
    assert ((both >= 0) & (both <= 1)).all()
    first, second = (replace_images(predictions, i) for i in range(2))
    torch.testing.assert_close(both[:1], MaskInference()(first, prior[:1]))
    torch.testing.assert_close(both[1:], MaskInference()(second, prior[1:]))
    assert not torch.allclose(both[0, 0], both[1, 1])


def replace_images(predictions: DensePredictions, image: int) -> DensePredictions:
    """The predictions of one image."""
    maps = {"controller": [x[image, None] for x in predictions.maps["controller"]]}
    image_maps = {"mask_features": predictions.image_maps["mask_features"][image, None]}
    return replace(predictions, maps=maps, image_maps=image_maps)


@pytest.mark.parametrize("output_size", [(120, 180), (30, 45), (60, 90)])
def test_masks_in_the_output_size(predictions, output_size):
    image_size = (60, 90)  # of 64 x 96 after padding
    probabilities = MaskInference()(predictions, torch.tensor([[3, 50, 118]] * 2))[1]
    masks = pasted(probabilities, image_size, output_size)
    p = aligned_bilinear(probabilities[:, None], 4)
    p = F.interpolate(p[..., :60, :90], size=output_size, mode="bilinear")[:, 0]
    assert masks.dtype == torch.bool
    assert torch.equal(masks, p > 0.5)
    assert masks.any() and not masks.all()


def test_chunks_make_no_difference(monkeypatch):
    probabilities = torch.rand(20, 16, 24, generator=torch.Generator().manual_seed(0))
    expected = pasted(probabilities, (64, 96), (64, 96))
    monkeypatch.setattr(module, "_PIXELS", 3 * 64 * 96)
    assert torch.equal(pasted(probabilities, (64, 96), (64, 96)), expected)


def test_no_detections(predictions):
    nothing = MaskInference()(predictions, torch.zeros(2, 0, dtype=torch.int64))
    assert nothing.shape == (2, 0, 16, 24)
    assert pasted(nothing[0], (60, 90), (30, 45)).shape == (0, 30, 45)
