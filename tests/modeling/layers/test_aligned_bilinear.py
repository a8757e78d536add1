"""Aligned bilinear upsampling."""

import pytest
import torch

from la_det.modeling.layers.aligned_bilinear import aligned_bilinear


@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_positions(factor, size):
    """Row i of the result lies at row (i - factor // 2) / factor, between the first and the last row."""
    x = torch.randn(2, 3, *size)
    expected = x
    for dim in (2, 3):
        position = ((torch.arange(factor * size[dim - 2]) - factor // 2) / factor).clamp(0, size[dim - 2] - 1)
        low = position.floor().long()
        high = (low + 1).clamp(max=size[dim - 2] - 1)
        fraction = (position - low).view([-1 if d == dim else 1 for d in range(4)])
        expected = expected.index_select(dim, low) * (1 - fraction) + expected.index_select(dim, high) * fraction
    torch.testing.assert_close(aligned_bilinear(x, factor), expected)


def test_nothing_to_upsample():
    assert aligned_bilinear(torch.zeros(0, 1, 3, 4), 2).shape == (0, 1, 6, 8)
