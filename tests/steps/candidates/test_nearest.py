"""The nearest cells of each level, against sorting all of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from la_det.steps.candidates import nearest_priors
from la_det.structures import AnchorGenerator, Priors, Targets
from tests.matchers.anchor_scenes import STRIDES


def targets_at(centers: torch.Tensor) -> Targets:
    g = len(centers)
    zeros = torch.zeros(g, dtype=torch.int64)
    boxes = torch.cat([centers - 8, centers + 8], 1)
    return Targets(boxes, zeros, zeros, (g,), ((64, 64),))


def by_sorting(priors: Priors, centers: torch.Tensor, k: int) -> torch.Tensor:
    """Stable sort of the squared distances of a whole level."""
    found = []
    for start, end in zip(priors.level_starts[:-1], priors.level_starts[1:], strict=True):
        d = (priors.points[start:end] - centers.unsqueeze(1)).square()
        order = (d[..., 0] + d[..., 1]).sort(dim=1, stable=True).indices
        found.append(start + order[:, : min(k * priors.per_cell, end - start)])
    return torch.cat(found, 1)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    k=st.integers(1, 12),
    per_cell=st.sampled_from([1, 3]),
    offset=st.sampled_from([0.0, 0.5]),
    box_offset=st.sampled_from([0, 1]),
    seed=st.integers(0, 2**32 - 1),
    raster=st.sampled_from([None, 4.0, 8.0]),
)
def test_same_as_sorting_all_cells(rows, columns, k, per_cell, offset, box_offset, seed, raster):
    """Anywhere, also far outside; on a raster many cells are equally near, and the first ones must win."""
    grid_sizes = [(-(-rows * 8 // s), -(-columns * 8 // s)) for s in STRIDES]
    generator = AnchorGenerator(sizes=(8.0,) * per_cell, offset=offset, box_offset=box_offset)
    priors = generator(grid_sizes, torch.device("cpu"))
    random = torch.Generator().manual_seed(seed)
    centers = (torch.rand(20, 2, generator=random) * 1.6 - 0.3) * torch.tensor([columns * 8.0, rows * 8.0])
    centers[0] = torch.tensor([-5000.0, 77.0])
    if raster:
        centers = (centers / raster).round() * raster + box_offset / 2
    targets = targets_at(centers)
    assert torch.equal(nearest_priors(priors, targets, k), by_sorting(priors, targets.centers, k))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 20),
    columns=st.integers(1, 20),
    part=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)),
    k=st.integers(1, 12),
    per_cell=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_only_cells_within_the_extents(rows, columns, part, k, per_cell, seed):
    """The same as on a grid that is no larger; what is missing there is -1."""
    generator = AnchorGenerator(sizes=(8.0,) * per_cell)
    grid_sizes = [(-(-rows * 8 // s), -(-columns * 8 // s)) for s in STRIDES]
    smaller = [(max(int(h * part[0]), 1), max(int(w * part[1]), 1)) for h, w in grid_sizes]
    priors, own = (generator(sizes, torch.device("cpu")) for sizes in (grid_sizes, smaller))
    random = torch.Generator().manual_seed(seed)
    targets = targets_at(torch.rand(20, 2, generator=random) * torch.tensor([columns * 8.0, rows * 8.0]))
    extents = torch.tensor([[(w, h) for h, w in smaller]])
    found, expected = nearest_priors(priors, targets, k, extents), nearest_priors(own, targets, k)
    counts = [[min(k, h * w) * per_cell for h, w in sizes] for sizes in (grid_sizes, smaller)]
    for level, theirs in zip(found.split(counts[0], 1), expected.split(counts[1], 1), strict=True):
        assert (level[:, theirs.shape[1] :] == -1).all()
        level = level[:, : theirs.shape[1]]
        assert torch.equal(priors.points[level], own.points[theirs])
        assert torch.equal(priors.levels[level], own.levels[theirs])


@pytest.mark.parametrize("grid", [(1, 1), (2, 4), (1, 30)])
def test_levels_with_fewer_cells_give_what_they_have(grid):
    priors = AnchorGenerator(strides=(8,), sizes=(8.0,))([grid], torch.device("cpu"))
    found = nearest_priors(priors, targets_at(torch.tensor([[3.0, 5.0]])), 9)
    assert found.shape == (1, min(9, grid[0] * grid[1]))
    assert len(found.unique()) == found.numel()


def test_no_ground_truth():
    priors = AnchorGenerator(sizes=(8.0,))([(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)], torch.device("cpu"))
    assert nearest_priors(priors, targets_at(torch.zeros(0, 2)), 9).shape == (0, 9 + 9 + 4 + 1 + 1)
