import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou, generalized_box_iou

from la_det.geometry import FLOAT32_EPS, aligned_giou, aligned_iou


def random_boxes(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = 50 * torch.rand(n, 2, generator=generator)
    return torch.cat([corners, corners + 0.5 + 50 * torch.rand(n, 2, generator=generator)], 1)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_same_as_torchvision(seed):
    a, b = random_boxes(20, seed), random_boxes(20, seed // 2 + 1)
    torch.testing.assert_close(aligned_iou(a, b), box_iou(a, b).diagonal())
    torch.testing.assert_close(aligned_giou(a, b), generalized_box_iou(a, b).diagonal(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(aligned_iou(a[:, None], b[None]), box_iou(a, b))


def test_boxes_without_area():
    point, box = torch.tensor([[5.0, 5.0, 5.0, 5.0]]), torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    assert aligned_iou(point, box) == 0
    assert aligned_iou(point, point) == 0
    assert aligned_giou(point, box) == 0
    # Union and enclosing area are raised to eps: I / eps - (0 - 0) / eps.
    assert aligned_giou(point, point) == 0
    assert aligned_giou(point, point + 10) == pytest.approx(-1)


def test_distant_boxes():
    a, b = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[9.0, 9.0, 10.0, 10.0]])
    assert aligned_iou(a, b) == 0
    assert aligned_giou(a, b) == pytest.approx(-0.98)


def test_gradient_at_a_side_of_zero_length():
    """clamp has gradient 1 at exactly 0, as the official losses: a prediction without width can still grow."""
    a = torch.tensor([[5.0, 0.0, 5.0, 10.0]], requires_grad=True)
    aligned_giou(a, torch.tensor([[0.0, 0.0, 10.0, 10.0]])).sum().backward()
    assert a.grad[0, 2] > 0
    assert a.grad[0, 0] < 0
    assert a.grad.isfinite().all()


def test_eps():
    tiny = torch.tensor([[0.0, 0.0, 1e-3, 1e-3]])
    assert aligned_iou(tiny, tiny) == pytest.approx(1)
    assert aligned_iou(tiny, tiny, eps=1e-5) == pytest.approx(0.1)
    assert FLOAT32_EPS == 2**-23


@pytest.mark.parametrize("iou", [aligned_iou, aligned_giou])
def test_the_gradient_does_not_wait_for_a_gpu(iou):
    boxes = torch.tensor([[0.0, 0.0, 8.0, 6.0]], requires_grad=True)
    with torch.profiler.profile() as profile:
        iou(boxes, torch.tensor([[1.0, 1.0, 9.0, 9.0]])).sum().backward()
    assert "aten::item" not in {event.key for event in profile.key_averages()}
