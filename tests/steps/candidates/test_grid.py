"""Candidate pairs from arithmetic against comparing every point with every box."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from la_det.references import poto as reference
from la_det.references.scene import KINDS, grid_sizes, make_targets, random_boxes
from la_det.steps.candidates import (
    center_region,
    center_windows,
    every_pair,
    everywhere,
    grid_cells,
    in_any_box,
    in_center_region,
    inside_box,
)
from la_det.structures import AnchorGenerator, PointGenerator

SIZES = st.sampled_from([(64, 64), (128, 160), (96, 320)])


def dense(pairs, num_gts: int, num_priors: int) -> torch.Tensor:
    """[G, R] mask; no pair may be listed twice."""
    mask = torch.zeros(num_gts, num_priors, dtype=torch.int64)
    mask.index_put_((pairs.gt, pairs.prior), torch.ones_like(pairs.gt), accumulate=True)
    assert mask.max() <= 1 if mask.numel() else True
    return mask.bool()


@st.composite
def targets_and_size(draw):
    height, width = draw(SIZES)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    kinds = draw(st.lists(st.lists(st.sampled_from(KINDS), max_size=5), min_size=1, max_size=3))
    boxes = [random_boxes(generator, k, height, width) for k in kinds]
    # Borders on points, where "strictly inside" decides.
    snapped = [torch.where(torch.rand(b.shape, generator=generator) < 0.3, (b / 4).round() * 4, b) for b in boxes]
    return make_targets(snapped, size=(height, width)), height, width


@given(targets_and_size(), st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.5, 40.0]), st.sampled_from([0.5, 0.0]), st.booleans())
@settings(max_examples=150, deadline=None)
def test_same_as_comparing_every_point(scene, radius, offset, inclusive):
    targets, height, width = scene
    generator = PointGenerator(offset=offset, box_offset=int(inclusive))
    priors = generator(grid_sizes(height, width), torch.device("cpu"))
    listed, inside = center_region(priors, targets, radius)
    pairs = listed[inside]
    expected = reference.omega(priors.points, priors.strides, targets.boxes, radius)
    assert torch.equal(dense(pairs, len(targets), len(priors)), expected)
    assert torch.equal(pairs.image, targets.image[pairs.gt])
    assert torch.equal(pairs.gt * len(priors) + pairs.prior, (pairs.gt * len(priors) + pairs.prior).sort().values)


@given(targets_and_size(), st.sampled_from([0.5, 0.0]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_points_in_any_box(scene, offset, inclusive):
    targets, height, width = scene
    priors = PointGenerator(offset=offset, box_offset=int(inclusive))(grid_sizes(height, width), torch.device("cpu"))
    inside = reference.omega(priors.points, priors.strides, targets.boxes, 0)
    expected = torch.stack([inside[targets.image == i].any(0) for i in range(targets.num_images)])
    assert torch.equal(in_any_box(priors, targets), expected)


def test_points_in_any_box_of_several_priors_per_cell():
    priors = AnchorGenerator(ratios=(0.5, 2.0))(grid_sizes(64, 64), torch.device("cpu"))
    with pytest.raises(ValueError, match="one prior per cell"):
        in_any_box(priors, make_targets([[[0, 0, 9, 9]]]))


@given(targets_and_size(), st.sampled_from([0.5, 1.5, 2.5]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_regions_of_pairs_and_windows_are_the_same(scene, radius, clipped):
    targets, height, width = scene
    priors = PointGenerator()(grid_sizes(height, width), torch.device("cpu"))
    window, inside = center_windows(priors, targets, radius, clipped=clipped)
    listed = dense(every_pair(window, targets)[inside.flatten()], len(targets), len(priors))
    every = everywhere(torch.arange(len(targets)), targets, len(priors))
    mask = in_center_region(every, priors, targets, radius, clipped=clipped).view(-1, len(priors))
    assert torch.equal(mask, listed)
    if not clipped:
        offset = (priors.points - targets.centers.unsqueeze(1)).abs().amax(-1)
        assert torch.equal(mask, offset < radius * priors.strides)
    else:
        assert torch.equal(mask, reference.omega(priors.points, priors.strides, targets.boxes, radius))


@given(st.lists(st.floats(width=32), min_size=4, max_size=4))
@example([0.0, float("nan"), 5.0, 5.0])
@example([0.0, 0.0, 5.0, float("nan")])
@example([0.0, 0.0, float("inf"), 5.0])
@settings(max_examples=100, deadline=None)
def test_any_numbers(box):
    """Huge, infinite and NaN coordinates neither overflow nor list cells that are not there."""
    priors = PointGenerator()(grid_sizes(64, 64), torch.device("cpu"))
    targets = make_targets([[box]])
    expected = reference.omega(priors.points, priors.strides, targets.boxes, 0)
    assert torch.equal(dense(inside_box(priors, targets), 1, len(priors)), expected)
    assert torch.equal(in_any_box(priors, targets), expected)


def test_at_most_nine_points_per_level():
    priors = PointGenerator()(grid_sizes(512, 512), torch.device("cpu"))
    listed, inside = center_region(priors, make_targets([[[0, 0, 512, 512], [100, 100, 300, 301]]]), 1.5)
    pairs = listed[inside]
    counts = torch.bincount(pairs.gt * 5 + priors.levels[pairs.prior], minlength=10)
    assert counts.max() == 9


def test_rectangles_of_several_priors_per_cell():
    priors = AnchorGenerator(strides=(8, 16), sizes=(4, 8))([(3, 4), (2, 2)], torch.device("cpu"))
    targets = make_targets([[[0, 0, 8, 8]]])
    first = torch.tensor([[[2, 1], [-1, 0], [1, 1], [0, 0]]])
    extent = torch.tensor([[[1, 2], [2, 1], [5, 5], [0, 3]]])
    pairs = grid_cells(priors, targets, first, extent)
    # Level 0, anchor 0: column 2 of rows 1 and 2; anchor 1: column 0 of row 0. Level 1, anchor 0: the last cell.
    assert pairs.prior.tolist() == [2 * (4 + 2), 2 * (8 + 2), 1, 24 + 2 * 3]
    with pytest.raises(ValueError, match="2 rectangles per level"):
        grid_cells(priors, targets, first[:, :2], extent[:, :2])
