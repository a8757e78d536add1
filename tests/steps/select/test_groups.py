import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from la_det.references.scene import make_targets
from la_det.steps.select import best_in_group, best_of_each, contested, rank_in_group, topk_in_group
from la_det.structures import Pairs, PointGenerator

# Few different values, so that ties are common; both zeros, denormals and the largest numbers.
VALUES = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, -1e-45, 3e38, -3e38, 1e-8])
PAIRS = st.lists(st.tuples(st.integers(0, 4), VALUES), max_size=30)


def ranked(pairs: list[tuple[int, float]], group: int) -> list[int]:
    """Indices of a group's pairs by descending value, ties by index."""
    return sorted((i for i, (g, _) in enumerate(pairs) if g == group), key=lambda i: (-pairs[i][1], i))


@given(PAIRS)
@settings(max_examples=200, deadline=None)
def test_rank_in_group(pairs):
    group = torch.tensor([g for g, _ in pairs], dtype=torch.int64)
    value = torch.tensor([v for _, v in pairs])
    index, rank = rank_in_group(group, value, 5)
    expected = [ranked(pairs, g) for g in range(5)]
    assert index.tolist() == sum(expected, [])
    assert rank.tolist() == [r for group in expected for r in range(len(group))]


@given(PAIRS)
@settings(max_examples=100, deadline=None)
def test_best_in_group(pairs):
    group = torch.tensor([g for g, _ in pairs], dtype=torch.int64)
    value = torch.tensor([v for _, v in pairs])
    expected = [ranked(pairs, g)[0] for g in range(5) if ranked(pairs, g)]
    assert best_in_group(group, value, 5).nonzero().squeeze(1).tolist() == sorted(expected)


@given(PAIRS, st.data())
@settings(max_examples=100, deadline=None)
def test_best_in_group_among_some(pairs, data):
    among = data.draw(st.lists(st.booleans(), min_size=len(pairs), max_size=len(pairs)))
    group = torch.tensor([g for g, _ in pairs], dtype=torch.int64)
    value = torch.tensor([v for _, v in pairs])
    some = [i for i, chosen in enumerate(among) if chosen]
    best = best_in_group(group, value, 5, torch.tensor(among, dtype=torch.bool))
    alone = best_in_group(group[some], value[some], 5)
    assert best[some].tolist() == alone.tolist() and best.sum() == alone.sum()


def test_of_two_zeros_none_is_larger():
    index, _ = rank_in_group(torch.zeros(3, dtype=torch.int64), torch.tensor([-1.0, -0.0, 0.0]), 1)
    assert index.tolist() == [1, 2, 0]


@pytest.mark.parametrize("nan", [float("nan"), -float("nan")])
def test_nan_does_not_hide(nan):
    index, _ = rank_in_group(torch.zeros(3, dtype=torch.int64), torch.tensor([1.0, nan, 2.0]), 1)
    assert index.tolist() == [1, 2, 0]


def test_best_of_each_gives_a_location_to_one_and_the_loser_nothing():
    priors = PointGenerator(strides=(8,))([(1, 4)], torch.device("cpu"))
    targets = make_targets([torch.zeros(3, 4), torch.zeros(1, 4)])
    pairs = Pairs(
        image=torch.tensor([0, 0, 0, 0, 0, 1]),
        prior=torch.tensor([0, 1, 1, 2, 3, 1]),
        gt=torch.tensor([0, 0, 1, 1, 2, 3]),
    )
    value = torch.tensor([0.1, 0.8, 0.9, 0.7, 0.0, 0.2])
    best = best_of_each(pairs, value, priors, targets)
    assert list(zip(best.image.tolist(), best.prior.tolist(), best.gt.tolist(), strict=True)) == [
        (0, 1, 1),
        (0, 3, 2),
        (1, 1, 3),
    ]


def test_contested_locations():
    """In the second image nobody else takes location 1."""
    priors = PointGenerator(strides=(8,))([(1, 4)], torch.device("cpu"))
    pairs = Pairs(torch.tensor([0, 0, 0, 0, 1]), torch.tensor([1, 1, 1, 2, 1]), torch.tensor([0, 1, 2, 2, 3]))
    taken = torch.tensor([True, True, False, True, True])
    assert contested(pairs, taken, priors, 2).tolist() == [True, True, True, False, False]


def test_the_largest_values_of_each_group():
    """The first two of equal values; a group with less than two has what it has."""
    group, value = torch.tensor([1, 0, 1, 1, 0, 0, 3]), torch.tensor([0.1, 0.5, 0.9, 0.3, 0.5, 0.5, -1.0])
    assert topk_in_group(group, value, 4, 2).tolist() == [False, True, True, True, True, False, True]
