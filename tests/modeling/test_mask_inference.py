"""Masks of detections in the size of the output."""

import pytest
import torch
import torch.nn.functional as F

from la_det.modeling import mask_inference as module
from la_det.modeling.layers.aligned_bilinear import aligned_bilinear
from la_det.modeling.mask_inference import MaskInference
from la_det.structures import DensePredictions, LTRBCodec, PointGenerator

GRIDS = [(8, 12), (4, 6)]


@pytest.fixture
def predictions() -> DensePredictions:
    torch.manual_seed(0)
    priors = PointGenerator(strides=(8, 16))(GRIDS, torch.device("cpu"))
    maps = {"controller": [torch.randn(2, 169, *size) * 0.5 for size in GRIDS]}
    return DensePredictions(priors, LTRBCodec(), maps, {"mask_features": torch.randn(2, 8, *GRIDS[0])})


@pytest.mark.parametrize("output_size", [(120, 180), (30, 45), (60, 90)])
def test_masks_in_the_output_size(predictions, output_size):
    prior = torch.tensor([3, 50, 118])
    image_size = (60, 90)  # of 64 x 96 after padding
    inference = MaskInference()
    masks = inference(predictions, 1, prior, image_size, output_size)
    p = aligned_bilinear(inference.logits(predictions, 1, prior).sigmoid()[:, None], 4)
    p = F.interpolate(p[..., :60, :90], size=output_size, mode="bilinear")[:, 0]
    assert masks.dtype == torch.bool
    assert torch.equal(masks, p > 0.5)
    assert masks.any() and not masks.all()
    assert not torch.equal(masks, inference(predictions, 0, prior, image_size, output_size))


def test_chunks_make_no_difference(predictions, monkeypatch):
    prior = torch.arange(20)
    expected = MaskInference()(predictions, 0, prior, (64, 96), (64, 96))
    monkeypatch.setattr(module, "_PIXELS", 3 * 64 * 96)
    assert torch.equal(MaskInference()(predictions, 0, prior, (64, 96), (64, 96)), expected)


def test_no_detections(predictions):
    nothing = torch.zeros(0, dtype=torch.int64)
    assert MaskInference()(predictions, 0, nothing, (60, 90), (30, 45)).shape == (0, 30, 45)
