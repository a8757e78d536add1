"""The pixel-inclusive convention against its own formulas: widths x2 - x1 + 1, centres (x1 + x2) / 2."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from la_det.geometry import aligned_giou, aligned_iou, centerness
from la_det.structures import AnchorGenerator, DeltaCodec, LTRBCodec, PointGenerator

GRID_SIZES = [(6, 7), (3, 4), (2, 2), (1, 1), (1, 1)]
CPU = torch.device("cpu")
INCLUSIVE = AnchorGenerator(sizes=(8.0,), box_offset=1)(GRID_SIZES, CPU)
ONE = torch.tensor([0.0, 0.0, 1.0, 1.0])  # what the continuous box has more


def random_boxes(n: int, seed: int) -> torch.Tensor:
    """Pixel-inclusive boxes of at least two pixels a side."""
    random = torch.Generator().manual_seed(seed)
    corners = torch.rand(n, 2, generator=random) * 50
    return torch.cat([corners, corners + 1 + torch.rand(n, 2, generator=random) * 60], 1)


def center_and_size(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    sizes = boxes[:, 2:] - boxes[:, :2] + 1
    return boxes[:, :2] + 0.5 * sizes, sizes


def test_first_anchor():
    assert (INCLUSIVE.boxes[0] - ONE).tolist() == [-27.5, -27.5, 35.5, 35.5]
    assert INCLUSIVE.points[0].tolist() == [4.5, 4.5]


def test_points_move_and_nothing_else():
    plain, inclusive = (PointGenerator(box_offset=o)(GRID_SIZES, CPU) for o in (0, 1))
    assert torch.equal(inclusive.points, plain.points + 0.5)
    assert plain.inset(boxes := random_boxes(3, 0)) is boxes


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_deltas(seed):
    """maskrcnn-benchmark's box coder: dx = 10 (gx - ax) / aw with pixel-inclusive centres and sizes."""
    gt, prior = random_boxes(20, seed), torch.arange(20)
    anchors = INCLUSIVE.boxes[prior] - ONE
    (ac, a), (gc, g) = center_and_size(anchors), center_and_size(gt)
    expected = torch.cat([10 * (gc - ac) / a, 5 * (g / a).log()], 1)
    codec = DeltaCodec(weights=(10.0, 10.0, 5.0, 5.0))
    torch.testing.assert_close(codec.encode(gt + ONE, INCLUSIVE, prior), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(codec.decode(expected, INCLUSIVE, prior) - ONE, gt, rtol=1e-4, atol=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_distances(seed, in_strides):
    """From (j + 0.5) s to the pixel-inclusive coordinates."""
    gt, prior = random_boxes(20, seed), torch.arange(20)
    points = INCLUSIVE.points[prior] - 0.5
    expected = torch.cat([points - gt[:, :2], gt[:, 2:] - points], 1)
    if in_strides:
        expected = expected / INCLUSIVE.strides[prior].unsqueeze(1)
    codec = LTRBCodec(in_strides=in_strides)
    torch.testing.assert_close(codec.encode(gt + ONE, INCLUSIVE, prior), expected)
    torch.testing.assert_close(codec.decode(expected, INCLUSIVE, prior) - ONE, gt)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_overlaps(seed):
    """IoU counts pixels; GIoU and centerness use plain differences of pixel indices."""
    a, b = random_boxes(20, seed), random_boxes(20, seed + 1)
    sides = torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])
    (_, size_a), (_, size_b) = center_and_size(a), center_and_size(b)
    overlap = (sides + 1).clamp(min=0).prod(1)
    expected = overlap / (size_a.prod(1) + size_b.prod(1) - overlap)
    torch.testing.assert_close(aligned_iou(a + ONE, b + ONE), expected)

    inset_a, inset_b = INCLUSIVE.inset(a + ONE), INCLUSIVE.inset(b + ONE)
    overlap = sides.clamp(min=0).prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - overlap
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1)
    expected = overlap / union - (hull - union) / hull
    torch.testing.assert_close(aligned_giou(inset_a, inset_b), expected, rtol=1e-4, atol=1e-5)

    point = (a[:, :2] + a[:, 2:]) / 2 + torch.tensor([0.2, -0.3])
    before, after = point - a[:, :2], a[:, 2:] - point
    expected = (torch.minimum(before, after) / torch.maximum(before, after)).prod(1).sqrt()
    torch.testing.assert_close(centerness(point + 0.5, inset_a), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [0.0, 0.4, 1.0])
def test_boxes_without_a_pixel_become_zero_width(width):
    inset = INCLUSIVE.inset(torch.tensor([[10.0, 10.0, 10.0 + width, 30.0]]))
    assert inset.tolist() == [[10.5, 10.5, 10.5, 29.5]]
