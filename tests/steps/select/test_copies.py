"""Several columns for each row against SciPy on the dense problem with repeated rows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from la_det.references.scene import make_targets
from la_det.steps.select import copies, match_copies

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def check(cost: np.ndarray, counts: list[int], most: int) -> None:
    """Costs [G, Q] of images one after the other."""
    boxes = [np.tile([0.0, 0.0, 8.0, 8.0], (count, 1)).tolist() for count in counts]
    targets = make_targets(boxes, [[0] * count for count in counts], (64, 64))
    rows, columns = (x.numpy() for x in match_copies(torch.from_numpy(cost.astype(np.float32)), targets, most))
    assert (np.diff(rows) >= 0).all()
    start = 0
    for count in counts:
        here = cost[start : start + count]
        exists = np.isfinite(here).all(0)
        k = min(most, exists.sum() // max(count, 1))
        mine = (rows >= start) & (rows < start + count)
        assert np.bincount(rows[mine] - start, minlength=count).tolist() == [k] * count
        assert len(set(columns[mine])) == mine.sum() and exists[columns[mine]].all()
        repeated = here[:, exists].repeat(k, 0)
        best = repeated[linear_sum_assignment(repeated)].sum()
        found = here[rows[mine] - start, columns[mine]].sum()
        assert found == pytest.approx(best, rel=1e-5, abs=1e-5)
        start += count


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.sampled_from([0.01, 1.0, 30.0]), st.booleans(), st.booleans())
def test_same_sum_as_the_dense_form(seed, most, scale, rounded, alike):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 8, 3).tolist()
    cost = scale * rng.normal(size=(sum(counts), 60))
    if rounded:
        cost = cost.round()  # many optima
    if alike:  # all want the same
        cost = scale * rng.normal(size=(1, 60)) + 0.1 * cost
    start = 0
    for count in counts:
        cost[start : start + count, rng.random(60) < 0.3] = np.inf
        start += count
    check(cost, counts, most)


@pytest.mark.parametrize("least_share", [0.0, 0.04, 1.0, 2.0])
def test_crowds_however_few_columns_are_listed(least_share, monkeypatch):
    monkeypatch.setattr(copies, "LEAST_SHARE", least_share)
    rng = np.random.default_rng(0)
    points, rows = rng.random((300, 2)), rng.random((30, 2))
    check(3 * np.abs(rows[:, None] - points[None]).sum(-1) - 1, [30], 8)


def test_a_free_column_replaces_a_bad_one(monkeypatch):
    monkeypatch.setattr(copies, "LEAST_SHARE", 2.0)  # so that the first matching is any
    check(np.array([[5.0, 1.0, 2.0]]), [1], 2)


def test_nothing_to_match():
    check(np.empty((0, 5)), [0, 0], 2)
    check(np.full((2, 5), np.inf), [2], 2)
    check(np.zeros((6, 5)), [6], 2)


@pytest.mark.parametrize("rows", [1, slice(None)])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_costs_that_are_not_finite_are_reported(value, rows):
    cost = np.zeros((2, 5))
    cost[rows, 3] = value
    with pytest.raises(FloatingPointError, match="diverged"):
        check(cost, [2], 1)
