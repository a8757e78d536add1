import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou, generalized_box_iou

from la_det.geometry import FLOAT32_EPS, aligned_ciou, aligned_giou, aligned_iou


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


def plain_overlaps(a, b):
    """Sides of the intersection and of the enclosing box, areas of the intersection and the union."""
    inner = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
    outer = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
    of_a, of_b = ((x[:, 2:] - x[:, :2]).clamp(min=0).prod(1) for x in (a, b))
    return inner, outer, inner.prod(1), of_a + of_b - inner.prod(1)


def plain_iou(a, b, eps):
    _, _, intersection, union = plain_overlaps(a, b)
    return intersection / union.clamp(min=eps)


def plain_giou(a, b, eps):
    _, outer, _, union = plain_overlaps(a, b)
    return plain_iou(a, b, eps) - (outer.prod(1) - union) / outer.prod(1).clamp(min=eps)


def plain_ciou(a, b, eps):
    """YOLOv8's form: heights, union and diagonal have eps added."""
    _, outer, intersection, _ = plain_overlaps(a, b)
    (wa, ha), (wb, hb) = ((x[:, 2:] - x[:, :2]).unbind(1) for x in (a, b))
    iou = intersection / (wa * (ha + eps) + wb * (hb + eps) - intersection + eps)
    distance = ((a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]) / 2).square().sum(1)
    v = 4 / math.pi**2 * ((wb / (hb + eps)).atan() - (wa / (ha + eps)).atan()).square()
    alpha = (v / (v - iou + 1 + eps)).detach()
    return iou - distance / (outer.square().sum(1) + eps) - alpha * v


@pytest.mark.parametrize(
    ("ours", "plain", "eps"),
    [
        (aligned_iou, plain_iou, 1e-3),
        (aligned_giou, plain_giou, 1e-3),
        (aligned_iou, plain_iou, 1e6),  # above every union: it is a constant then
        (aligned_giou, plain_giou, 1e6),
        (aligned_ciou, plain_ciou, 1e-7),
    ],
)
def test_values_and_gradients_are_those_of_autograd(ours, plain, eps):
    """Of boxes that overlap, lie within each other, share sides, or are apart in one direction or both."""
    a, b = random_boxes(200, 1).double(), random_boxes(200, 2).double()
    b[:50] += 60  # apart, most of them in both directions
    b[50:100, ::2] += 60  # in x alone
    b[100:120, :2] = a[100:120, :2]
    b[120:130] = a[120:130] + torch.tensor([1, 1, -1, -1]) * 0.1
    b[130:140, 1::2] = a[130:140, 1::2]
    a, exact = a.requires_grad_(), a.detach().clone().requires_grad_()
    value, expected = ours(a, b, eps), plain(exact, b, eps)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    value.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(a.grad, exact.grad, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("iou", [aligned_iou, aligned_giou, aligned_ciou])
def test_the_gradient_does_not_wait_for_a_gpu(iou):
    boxes = torch.tensor([[0.0, 0.0, 8.0, 6.0]], requires_grad=True)
    with torch.profiler.profile() as profile:
        iou(boxes, torch.tensor([[1.0, 1.0, 9.0, 9.0]])).sum().backward()
    assert "aten::item" not in {event.key for event in profile.key_averages()}
