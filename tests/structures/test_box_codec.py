import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from la_det.structures import AnchorGenerator, CornerCodec, DeltaCodec, LTRBCodec, PointGenerator

GRID_SIZES = [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]
PRIORS = AnchorGenerator()(GRID_SIZES, torch.device("cpu"))
CODECS = [
    LTRBCodec(),
    LTRBCodec(in_strides=True),
    CornerCodec(),
    DeltaCodec(),
    DeltaCodec(weights=(10.0, 10.0, 5.0, 5.0)),
]


@pytest.mark.parametrize("codec", CODECS, ids=["pixels", "strides", "corners", "deltas", "weighted deltas"])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_decode_inverts_encode(codec, seed):
    generator = torch.Generator().manual_seed(seed)
    prior = torch.randint(len(PRIORS), (3, 10), generator=generator)
    corners = 64 * torch.rand(3, 10, 2, generator=generator)
    boxes = torch.cat([corners, corners + 1 + 100 * torch.rand(3, 10, 2, generator=generator)], -1)
    torch.testing.assert_close(
        codec.decode(codec.encode(boxes, PRIORS, prior), PRIORS, prior), boxes, rtol=0, atol=1e-3
    )


def test_distances():
    prior = torch.tensor([9, 64])  # (12, 12) of stride 8, (8, 8) of stride 16
    raw = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]])
    assert LTRBCodec().decode(raw, PRIORS, prior).tolist() == [[11, 10, 15, 16], [8, 8, 8, 8]]
    assert LTRBCodec(in_strides=True).decode(raw, PRIORS, prior).tolist() == [[4, -4, 36, 44], [8, 8, 8, 8]]


def test_deltas():
    prior = torch.tensor([9, 9])  # the anchor (-4, -4, 28, 28)
    raw = torch.tensor([[0.25, -0.5, math.log(2.0), 0.0], [0.0, 0.0, 100.0, -100.0]])
    small, huge = DeltaCodec().decode(raw, PRIORS, prior)
    torch.testing.assert_close(small, torch.tensor([20 - 32, -4.0 - 16, 20 + 32, -4.0 + 32 - 16]))
    torch.testing.assert_close(huge, torch.tensor([12 - 16 * 62.5, 12.0, 12 + 16 * 62.5, 12.0]))


def test_deltas_clamped_from_below():
    raw = torch.tensor([[0.0, 0.0, -100.0, -3.0]])
    (box,) = DeltaCodec(clamp_both=True).decode(raw, PRIORS, torch.tensor([9]))
    torch.testing.assert_close(box[2:] - box[:2], 32 * torch.tensor([16 / 1000, math.exp(-3)]))


def test_corners():
    raw = torch.tensor([[1.0, -2.0, 3.0, 0.5]])
    assert CornerCodec().decode(raw, PRIORS, torch.tensor([64])).tolist() == [[16, -32, 48, 8]]


def test_no_gradient_beyond_the_clamp_of_deltas():
    raw = torch.tensor([[0.0, 0.0, 5.0, 0.0]], requires_grad=True)
    DeltaCodec().decode(raw, PRIORS, torch.tensor([0])).square().sum().backward()
    assert raw.grad[0, 2] == 0
    assert raw.grad[0, 3] != 0


def test_deltas_need_anchors():
    points = PointGenerator()(GRID_SIZES, torch.device("cpu"))
    with pytest.raises(ValueError, match="anchor"):
        DeltaCodec().decode(torch.zeros(1, 4), points, torch.tensor([0]))
