import numpy as np
import pytest
import torch

from la_det.modeling.criteria import Decision
from la_det.structures import (
    AnchorGenerator,
    Assignment,
    DensePredictions,
    LTRBCodec,
    Negatives,
    Pairs,
    PointGenerator,
    Queries,
    Score,
    Targets,
)
from la_det.visualization.locations import Kind, locations

CPU = torch.device("cpu")
# Prior 5 of the finest level, at (12, 12), and prior 16, the first of the second, at (8, 8).
FINE, COARSE = 5, 16


def assigned(assignment: Assignment, generator=PointGenerator) -> Decision:
    """One 32-pixel image with three ground truths; every location predicts a 16-pixel box and p = 1/2."""
    priors = generator(strides=(8, 16))([(4, 4), (2, 2)], CPU)
    maps = {
        "logits": [torch.zeros(1, 2, n, n) for n in (4, 2)],
        "boxes": [torch.full((1, 4, n, n), 8.0) for n in (4, 2)],
    }
    boxes = torch.tensor([[4.0, 4, 20, 20], [4, 4, 20, 36], [24, 24, 32, 32]])
    targets = Targets(
        boxes,
        torch.tensor([0, 1, 1]),
        torch.zeros(3, dtype=torch.int64),
        (3,),
        ((32, 32),),
    )
    return Decision(DensePredictions(priors, LTRBCodec(), maps), targets, assignment, Score())


def pairs(prior: list[int], gt: list[int]) -> Pairs:
    prior, gt = torch.tensor(prior, dtype=torch.int64), torch.tensor(gt, dtype=torch.int64)
    return Pairs(torch.zeros_like(prior), prior, gt)


NUMBERS = torch.tensor([0, 2, 3])  # ground truth 1 of the image was hidden from the matcher


def test_plain_positives():
    found = locations(assigned(Assignment(pairs([FINE, COARSE], [0, 1]))), NUMBERS)
    assert found.kind.tolist() == [Kind.POSITIVE] * 2
    assert found.gt.tolist() == [0, 2]
    assert found.level.tolist() == [0, 1]
    assert found.point.tolist() == [[12, 12], [8, 8]]
    assert found.weight.tolist() == found.target.tolist() == found.strength.tolist() == [1, 1]
    assert found.probability.tolist() == [0.5, 0.5]
    assert found.box.tolist() == [[4, 4, 20, 20], [0, 0, 16, 16]]
    # The second box and ground truth, 16 x 16 and 16 x 32 pixels, share 12 x 12.
    np.testing.assert_allclose(found.iou, [1, 144 / (256 + 512 - 144)], rtol=1e-6)
    assert np.isnan(found.anchor).all()


def test_soft_and_weighted_positives():
    weight, target = torch.tensor([0.5, 0.25, 1.0]), torch.tensor([1.0, 1.0, 0.3])
    found = locations(assigned(Assignment(pairs([5, 6, COARSE], [0, 0, 1]), weight=weight, target=target)), NUMBERS)
    assert found.kind.tolist() == [Kind.POSITIVE, Kind.POSITIVE, Kind.SOFT]
    assert found.positive.all()
    # Shares of the ground truth's largest weight, and the soft target.
    np.testing.assert_allclose(found.strength, [1, 0.5, 0.3], rtol=1e-6)


def test_background_weights_belong_to_the_ground_truths_of_their_class_around_them():
    prior = torch.tensor([FINE, FINE, 3])  # 3 is at (28, 4), outside of all boxes
    negatives = Negatives(
        torch.zeros(3, dtype=torch.int64), prior, torch.tensor([0, 1, 1]), torch.tensor([0.2, 0.4, 0.6])
    )
    found = locations(assigned(Assignment(pairs([], []), negatives=negatives)), NUMBERS)
    assert found.kind.tolist() == [Kind.NEGATIVE] * 3 and not found.positive.any()
    assert found.gt.tolist() == [0, 2, -1]
    np.testing.assert_allclose(found.weight, [0.2, 0.4, 0.6])
    np.testing.assert_allclose(found.strength, [0.8, 0.6, 0.4], rtol=1e-6)
    assert np.isnan(found.probability).tolist() == np.isnan(found.iou).tolist() == [False, False, True]


def test_dropped_priors_belong_to_all_ground_truths_around_them():
    dropped = (torch.zeros(2, dtype=torch.int64), torch.tensor([FINE, 3]))
    found = locations(assigned(Assignment(pairs([COARSE], [1]), dropped=dropped)), NUMBERS)
    assert found.kind.tolist() == [Kind.POSITIVE] + [Kind.DROPPED] * 3
    assert found.gt.tolist() == [2, 0, 2, -1]
    assert found.weight.tolist() == [1, 0, 0, 0]


def test_anchors():
    found = locations(assigned(Assignment(pairs([FINE], [0])), AnchorGenerator), NUMBERS)
    assert found.anchor.tolist() == [[-4, -4, 28, 28]]


@pytest.mark.parametrize("negatives", [False, True])
def test_nothing_assigned(negatives):
    none = torch.zeros(0, dtype=torch.int64)
    assignment = Assignment(pairs([], []), negatives=Negatives(none, none, none, torch.zeros(0)) if negatives else None)
    assert len(locations(assigned(assignment), NUMBERS)) == 0


def test_a_diverged_network_has_no_strength():
    nan = torch.tensor([torch.nan, 1.0])
    found = locations(assigned(Assignment(pairs([5, 6], [0, 1]), weight=nan, target=nan)), NUMBERS)
    assert np.isnan(found.weight).tolist() == [True, False]
    assert found.strength.tolist() == [0, 1]


def test_locations_that_are_no_queries_are_dropped_where_an_object_is():
    prior = torch.arange(20).unsqueeze(0)
    queries = Queries(prior, torch.zeros(1, 20, 4), (prior != FINE) & (prior != 3), 20)
    found = locations(assigned(Assignment(pairs([COARSE], [1]), queries=queries)), NUMBERS)
    assert found.kind.tolist() == [Kind.POSITIVE] + [Kind.DROPPED] * 2
    assert found.gt.tolist() == [2, 0, 2]
