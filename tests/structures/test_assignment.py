import torch

from la_det.references.scene import dense_matches
from la_det.structures import Assignment, Pairs

PAIRS = Pairs(image=torch.tensor([0, 0, 1]), prior=torch.tensor([4, 2, 4]), gt=torch.tensor([0, 1, 2]))


def rows(pairs: Pairs) -> list[tuple[int, ...]]:
    return list(zip(pairs.image.tolist(), pairs.prior.tolist(), pairs.gt.tolist(), strict=True))


def test_pairs_at_an_index_or_mask():
    assert len(PAIRS) == 3
    assert rows(PAIRS[torch.tensor([2, 0])]) == [(1, 4, 2), (0, 4, 0)]
    assert rows(PAIRS[torch.tensor([False, True, False])]) == [(0, 2, 1)]
    assert len(PAIRS[torch.zeros(3, dtype=torch.bool)]) == 0


def test_joined():
    assert rows(Pairs.cat([PAIRS, PAIRS[torch.tensor([1])]])) == [*rows(PAIRS), (0, 2, 1)]


def test_matched():
    matched = dense_matches(Assignment(PAIRS), num_images=3, num_priors=5)
    assert matched.tolist() == [[-1, -1, 1, -1, 0], [-1, -1, -1, -1, 2], [-1] * 5]


def test_number_of_positives():
    assert Assignment(PAIRS).num_positives == 3
    assert Assignment(PAIRS, num_counted=2).num_positives == 5
    assert Assignment(PAIRS).num_positives.dtype == torch.float32


def test_drop():
    assignment = Assignment(PAIRS, weight=torch.tensor([1.0, 2.0, 3.0]), target=torch.tensor([0.1, 0.2, 0.3]))
    mask = torch.tensor([True, False, False])
    for counted in (False, True):
        dropped = assignment.drop(mask, counted=counted)
        assert rows(dropped.pairs) == [(0, 2, 1), (1, 4, 2)]
        assert dropped.weight.tolist() == [2, 3]
        torch.testing.assert_close(dropped.target, torch.tensor([0.2, 0.3]))
        assert [x.tolist() for x in dropped.dropped] == [[0], [4]]
        assert dropped.num_positives == (3 if counted else 2)
    marked = Assignment(PAIRS, classifies=torch.tensor([True, False, True])).drop(mask, counted=False)
    assert marked.classifies.tolist() == [False, True]
    twice = dropped.drop(torch.tensor([False, True]), counted=True)
    assert [x.tolist() for x in twice.dropped] == [[0, 1], [4, 4]]
    assert twice.num_positives == 3
