"""DETR's matching against SciPy on the dense cost matrix, and the bounds that save most of it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from la_det.matchers import Hungarian, hungarian
from la_det.references import hungarian as reference
from la_det.references.scene import flat, make_targets, matched_in_image, random_boxes, random_predictions
from la_det.steps.score import DETRCost
from la_det.structures import Score

KINDS = ("object", "object", "object", "tiny", "huge", "outside")
CROWD = ("object",) * 150


def make_scene(seed, kinds, size, num_classes=2):
    """Predictions and targets of len(kinds) images."""
    generator = torch.Generator().manual_seed(seed)
    boxes = [random_boxes(generator, k, *size) for k in kinds]
    classes = [torch.randint(num_classes, (len(b),), generator=generator) for b in boxes]
    targets = make_targets(boxes, classes, size)
    return random_predictions(generator, targets, *size, num_classes), targets


def check(predictions, targets):
    assignment = Hungarian()(predictions, targets, score=Score(), progress=0.0)
    actual = matched_in_image(assignment, targets, len(predictions.priors))
    p, boxes = flat(predictions, "logits").sigmoid(), predictions.boxes()
    for i, size in enumerate(targets.image_sizes):
        here = targets.image == i
        cost = reference.cost_matrix(p[i], boxes[i], targets.boxes[here], targets.classes[here], size)
        expected = reference.assign(cost)
        assert actual[i].tolist() == expected.tolist()


@pytest.mark.parametrize("number", [1, 60, 150])
def test_the_cheapest_priors_are_found(number):
    """Each of 86 blocks has one good prior, so that the few blocks of the first look are not enough."""
    predictions, targets = make_scene(0, [KINDS, CROWD[:40]], (256, 256))
    for logits in predictions.maps["logits"]:
        logits.sub_(10)[..., ::4, ::4] += 10
    costs = DETRCost(l1_weight=0.1, giou_weight=0.1)(predictions, targets, Score())
    gts = torch.arange(len(targets)).flip(0)[:43]
    gt, prior, cost, rest = costs.cheapest(gts, number)
    dense = costs.dense()
    assert torch.equal(cost, dense[gt, prior])
    found = torch.zeros_like(dense, dtype=torch.bool).index_put_((gt, prior), torch.tensor(True))
    assert len(gt) == found.sum()
    for row, least in zip(gts.tolist(), rest.tolist(), strict=True):
        assert found[row].sum() >= number
        assert dense[row][~found[row]].min() >= least


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data(), st.sampled_from([(64, 64), (100, 190)]))
def test_same_as_the_dense_form(data, size):
    kinds = data.draw(st.lists(st.lists(st.sampled_from(KINDS), max_size=8), min_size=1, max_size=3))
    check(*make_scene(data.draw(st.integers(0, 2**32 - 1)), kinds, size))


@pytest.mark.parametrize("few", [1, 8, 64])
def test_crowds(few, monkeypatch):
    """However few locations are listed at first."""
    monkeypatch.setattr(hungarian, "FEW", few)
    check(*make_scene(0, [CROWD, CROWD[:40], ()], (160, 256), num_classes=1))


def test_more_ground_truths_than_locations():
    predictions, targets = make_scene(1, [CROWD], (64, 64), num_classes=1)
    assert len(targets) > len(predictions.priors)
    check(predictions, targets)


def test_start_of_a_training():
    """All logits are alike and all boxes without area: next to no location can be told from its neighbours."""
    predictions, targets = make_scene(2, [CROWD[:30]], (160, 256), num_classes=1)
    generator = torch.Generator().manual_seed(0)
    for logits, boxes in zip(predictions.maps["logits"], predictions.maps["boxes"], strict=True):
        logits.copy_(-4.6 + 0.01 * torch.randn(logits.shape, generator=generator))
        boxes.zero_()
    check(predictions, targets)


def test_cost_may_match_a_location_outside_the_box():
    predictions, targets = make_scene(3, [("object",)], (64, 64), num_classes=1)
    for level, (logits, boxes) in enumerate(zip(predictions.maps["logits"], predictions.maps["boxes"], strict=True)):
        logits.fill_(-5.0)
        boxes.zero_()
        if level == 0:
            logits[0, 0, 7, 7] = 5.0
    targets = make_targets([[[0.0, 0.0, 24.0, 24.0]]], size=(64, 64))
    assignment = Hungarian()(predictions, targets, score=Score(), progress=0.0)
    assert assignment.pairs.prior.tolist() == [63]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from(KINDS), min_size=1, max_size=8))
def test_no_location_costs_less_than_its_blocks_bound(seed, kinds):
    predictions, targets = make_scene(seed, [kinds], (100, 190))
    costs = DETRCost()(predictions, targets, Score())
    gts = torch.arange(len(targets))
    exact = costs.at(gts.unsqueeze(1), torch.arange(len(costs.prior)))
    assert (costs.bound(gts) <= exact.amin(-1)).all()


def test_focal_cost_of_certain_probabilities():
    """Logarithms see 1e-12 more than the probability."""
    expected = 2 * torch.tensor([0.25, -0.75]) * 12 * math.log(10)
    torch.testing.assert_close(DETRCost().of_class(torch.tensor([0.0, 1.0])), expected)


@pytest.mark.parametrize("name", ["logits", "boxes"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_predictions_that_are_not_finite_are_reported(name, value):
    predictions, targets = make_scene(4, [CROWD[:3]], (64, 64))
    predictions.maps[name][1][0, 0, 1, 1] = value
    if name == "logits" and value == float("inf"):
        check(predictions, targets)  # a probability of 1 is a probability
        return
    with pytest.raises(FloatingPointError, match="diverged"):
        Hungarian()(predictions, targets, score=Score(), progress=0.0)


def test_no_ground_truths():
    predictions, targets = make_scene(5, [(), ()], (64, 64))
    assert len(Hungarian()(predictions, targets, score=Score(), progress=0.0).pairs) == 0
