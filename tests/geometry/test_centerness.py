import pytest
import torch

from la_det.geometry import centerness


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ([5.0, 10.0], 1.0),
        ([2.0, 10.0], (2 / 8) ** 0.5),
        ([2.0, 15.0], (2 / 8 * 5 / 15) ** 0.5),
        ([0.0, 10.0], 0.0),
        ([-3.0, 10.0], 0.0),
        ([-3.0, -3.0], 0.0),
        ([50.0, 50.0], 0.0),
    ],
)
def test_values(point, expected):
    box = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    assert centerness(torch.tensor([point]), box).item() == pytest.approx(expected)


def test_no_pairs():
    assert centerness(torch.zeros(0, 2), torch.zeros(0, 4)).shape == (0,)
