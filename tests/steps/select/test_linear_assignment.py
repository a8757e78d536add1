"""Matching on candidates against SciPy on the dense matrix."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from la_det.references.scene import make_targets
from la_det.steps.select import match, match_listed
from la_det.structures import Pairs


def random_problem(generator, num_rows, num_columns, missing, kind):
    """A value matrix, `missing` where there is no candidate, and the mask of candidates."""
    candidates = torch.rand(num_rows, num_columns, generator=generator) < torch.rand(1, generator=generator)
    candidates &= torch.rand(num_rows, 1, generator=generator) > 0.2  # some rows have none
    if num_columns:
        only = torch.randint(num_columns, (1,), generator=generator)
        fights = torch.rand(num_rows, 1, generator=generator) < 0.2  # some rows have only one, and the same
        candidates = torch.where(fights, torch.arange(num_columns) == only, candidates)
    value = torch.rand(num_rows, num_columns, generator=generator)
    if kind == "zeros":
        value = value * (torch.rand(num_rows, num_columns, generator=generator) < 0.3)
    elif kind == "costs":
        value = -100 * value
    elif kind == "duplicates" and num_rows > 1:
        value[1::2], candidates[1::2] = value[:-1:2], candidates[:-1:2]
    return torch.where(candidates, value, missing), candidates


def solve_all(problems, missing, drop_missing=False):
    """`match` on all problems at once, one per image: a list of (row, column) pairs per problem."""
    num_priors = problems[0][0].shape[1]
    targets = make_targets([torch.zeros(len(value), 4) for value, _ in problems])
    image, prior, gt, values, start = [], [], [], [], 0
    for i, (value, candidates) in enumerate(problems):
        row, column = candidates.nonzero(as_tuple=True)
        image.append(torch.full_like(row, i))
        prior.append(column)
        gt.append(row + start)
        values.append(value[row, column])
        start += len(value)
    pairs = Pairs(torch.cat(image), torch.cat(prior), torch.cat(gt))
    matched = match(pairs, torch.cat(values), targets, num_priors, missing=missing, drop_missing=drop_missing)
    starts = torch.tensor([0, *targets.counts]).cumsum(0)
    return [
        list(zip((matched.gt[here] - starts[i]).tolist(), matched.prior[here].tolist(), strict=True))
        for i, here in enumerate(matched.image == torch.arange(len(problems)).unsqueeze(1))
    ]


@pytest.mark.parametrize("missing", [-1.0, -1e8])
@pytest.mark.parametrize("kind", ["plain", "zeros", "costs", "duplicates"])
def test_same_as_dense_scipy(kind, missing):
    if kind == "costs" and missing == -1.0:
        missing = -101.0
    generator = torch.Generator().manual_seed(0)
    for num_columns in (1, 5, 30, 90):
        sizes = torch.randint(0, 13, (250,), generator=generator).tolist()  # also more rows than columns
        problems = [random_problem(generator, g, num_columns, missing, kind) for g in sizes]
        for (value, _), actual in zip(problems, solve_all(problems, missing), strict=True):
            expected = linear_sum_assignment(value.double().numpy(), maximize=True)
            assert actual == list(zip(*(x.tolist() for x in expected), strict=True))


@st.composite
def clusters(draw):
    """A problem of many components: groups of rows with candidates among the columns of their group, some of no column.

    Values are few, so that there are ties, or those of the row before.
    """
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=12))
    num_columns = draw(st.integers(sum(sizes), 150))
    levels, missing = draw(st.sampled_from([1, 2, 5, 1 << 20])), draw(st.sampled_from([-1.0, 0.0]))
    rows = []
    for size in sizes:
        start, width = (int(torch.randint(1, high, (), generator=generator)) for high in (num_columns + 1, 9))
        column = torch.arange(num_columns)
        group = (column >= start - 1) & (column < start - 1 + width)
        for _ in range(size):
            value = torch.randint(levels, (num_columns,), generator=generator) / levels
            row = torch.where(group & (torch.rand(num_columns, generator=generator) < 0.7), value, missing)
            rows.append(rows[-1] if rows and torch.rand((), generator=generator) < 0.2 else row)
    value = torch.stack(rows)[torch.randperm(len(rows), generator=generator)]
    candidates = value > missing if missing < 0 else torch.rand(value.shape, generator=generator) < 0.5
    return torch.where(candidates, value, missing), candidates, missing


@settings(max_examples=300, deadline=None)
@given(clusters())
def test_many_components_with_ties_duplicates_and_too_few_candidates(problem):
    value, candidates, missing = problem
    expected = linear_sum_assignment(value.double().numpy(), maximize=True)[1].tolist()
    [actual] = solve_all([(value, candidates)], missing)
    assert [column for _, column in actual] == expected


def test_drops_only_what_has_no_candidate():
    generator = torch.Generator().manual_seed(2)
    problems = [random_problem(generator, 1 + g % 9, 40, -1.0, "plain") for g in range(300)]
    everything, kept = solve_all(problems, -1.0), solve_all(problems, -1.0, drop_missing=True)
    dropped = 0
    for (_, candidates), whole, part in zip(problems, everything, kept, strict=True):
        assert part == [(row, column) for row, column in whole if candidates[row, column]]
        dropped += len(whole) - len(part)
    assert dropped > 100


def test_a_candidate_as_bad_as_no_candidate_is_dropped():
    """Both want location 1; the loser has only location 0, whose value is that of locations that are no candidates."""
    value = torch.tensor([[0.0, 0.5], [0.0, 0.4]])
    problem = value, torch.ones(2, 2, dtype=torch.bool)
    assert solve_all([problem], 0.0) == [[(0, 1), (1, 0)]]
    assert solve_all([problem], 0.0, drop_missing=True) == [[(0, 1)]]


def test_listed_candidates_match_as_many_as_possible():
    """The second row has only column 0, which is worth more to the first."""
    pairs = Pairs(torch.zeros(3, dtype=torch.int64), torch.tensor([0, 1, 0]), torch.tensor([0, 0, 1]))
    targets = make_targets([torch.zeros(2, 4)])
    matched, unproved = match_listed(pairs, torch.tensor([10.0, 0.0, 5.0]), torch.full((2,), -torch.inf), targets)
    assert matched.gt.tolist() == [0, 1] and matched.prior.tolist() == [1, 0]
    assert not unproved.any()


def test_lone_ground_truth_without_candidates_gets_the_first_free_location():
    empty, full = (torch.tensor([[-1.0, -1.0, -1.0]]), torch.zeros(1, 3, dtype=torch.bool)), torch.tensor([[True] * 3])
    assert solve_all([empty], -1.0) == [[(0, 0)]]
    both = torch.tensor([[0.9, 0.1, 0.1], [-1.0, -1.0, -1.0]]), torch.cat([full, ~full])
    assert solve_all([both], -1.0) == [[(0, 0), (1, 1)]]


def test_two_ground_truths_with_one_candidate():
    """Both have only location 7, and the loser gets 1, not 0."""
    candidates = (torch.arange(20) == 7).repeat(2, 1)
    value = torch.where(candidates, torch.tensor([[0.5], [0.4]]), -1.0)
    assert solve_all([(value, candidates)], -1.0) == [[(0, 7), (1, 1)]]
    assert solve_all([(value, candidates)], -1.0, drop_missing=True) == [[(0, 7)]]


def test_no_ground_truths():
    targets = make_targets([[], []])
    empty = torch.zeros(0, dtype=torch.int64)
    matched = match(Pairs(empty, empty, empty), torch.zeros(0), targets, 10, missing=-1.0)
    assert len(matched) == 0
    assert matched.prior.dtype == torch.int64


@pytest.mark.parametrize("bad", [float("nan"), -float("nan"), float("inf")])
@pytest.mark.parametrize("num_columns", [3, 50])
def test_values_that_are_not_finite_fail_loudly(bad, num_columns):
    value = torch.rand(2, num_columns)
    value[1, 2] = bad
    with pytest.raises(FloatingPointError, match="NaN or infinite matching values"):
        solve_all([(value, torch.ones(2, num_columns, dtype=torch.bool))], -1.0)
