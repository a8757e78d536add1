"""Each operator's ONNX form against itself; onnxscript runs it node by node."""

import numpy as np
import pytest
import torch
from torchvision.ops import deform_conv2d

from la_det.nms import agnostic_nms, class_nms

onnx_operators = pytest.importorskip("la_det.export.onnx_operators")


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_class_nms(share):
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(3, 80, 2, generator=generator) * 30
    boxes = torch.cat([corner, corner + 4 + torch.rand(3, 80, 2, generator=generator) * 12], -1)
    scores = torch.rand(3, 80, generator=generator)
    scores[:, 70:] = 0.0  # an existing box of probability 0 may stay
    classes = torch.randint(0, 4, (3, 80), generator=generator)
    valid = torch.rand(3, 80, generator=generator) < share
    expected = class_nms(boxes, scores, classes, valid, 0.4)
    found = onnx_operators.class_nms(*(x.numpy() for x in (boxes, scores, classes, valid)), 0.4)
    assert np.array_equal(found.value, expected.numpy())
    assert expected.sum() < valid.sum() or share == 0


def test_agnostic_nms():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(3, 80, 2, generator=generator) * 20
    boxes = torch.cat([corner, corner + 4 + torch.rand(3, 80, 2, generator=generator) * 12], -1)
    scores, valid = (torch.rand(3, 80, generator=generator) for _ in range(2))
    expected = agnostic_nms(boxes, scores, valid < 0.6, 0.4)
    found = onnx_operators.agnostic_nms(*(x.numpy() for x in (boxes, scores, valid < 0.6)), 0.4)
    assert np.array_equal(found.value, expected.numpy())
    assert 0 < expected.sum() < (valid < 0.6).sum()


@pytest.mark.parametrize("use_mask", [False, True])
def test_deform_conv2d(use_mask):
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 4, 7, 9, generator=generator), torch.randn(6, 4, 3, 3, generator=generator)
    offset, mask = torch.randn(2, 18, 4, 5, generator=generator), torch.rand(2, 9, 4, 5, generator=generator)
    bias = torch.randn(6, generator=generator)
    expected = deform_conv2d(x, offset, weight, bias, stride=2, padding=1, mask=mask if use_mask else None)
    arrays = [t.numpy() for t in (x, weight, offset, mask, bias)]
    found = onnx_operators.deform_conv2d(*arrays, 2, 2, 1, 1, 1, 1, 1, 1, use_mask)
    np.testing.assert_allclose(found.value, expected.numpy(), atol=1e-5)
