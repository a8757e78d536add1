"""OneNet's cost and its two rules against the dense forms, with several priors per cell, and shared priors."""

import pytest
import torch
from detectron2.config import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st

from la_det import model_zoo
from la_det.matchers import Hungarian, OneNet
from la_det.modeling.criteria import reduce_losses
from la_det.references import hungarian as reference
from la_det.references.scene import grid_sizes, make_targets, random_boxes, random_predictions
from la_det.steps.score import DETRCost
from la_det.structures import AnchorGenerator, DeltaCodec, DensePredictions, Score

KINDS = ("object", "object", "object", "tiny", "huge", "outside", "duplicate")
COST = DETRCost(corners=True, eps=1e-8)


def make_scene(seed, kinds, size, num_classes=2):
    generator = torch.Generator().manual_seed(seed)
    boxes = [random_boxes(generator, k, *size) for k in kinds]
    classes = [torch.randint(num_classes, (len(b),), generator=generator) for b in boxes]
    targets = make_targets(boxes, classes, size)
    return random_predictions(generator, targets, *size, num_classes), targets


def make_anchor_scene(seed, kinds, size=(96, 136), num_classes=2):
    generator = torch.Generator().manual_seed(seed)
    _, targets = make_scene(seed, kinds, size, num_classes)
    anchors = AnchorGenerator(sizes=[4.0, 5.0, 6.0], ratios=[0.5, 1.0, 2.0], sizes_first=True, offset=0.0)
    priors = anchors(grid_sizes(*size), torch.device("cpu"))
    maps = {
        name: [scale * torch.randn(targets.num_images, 9 * c, h, w, generator=generator) for h, w in priors.grid_sizes]
        for name, c, scale in (("logits", num_classes, 2.0), ("boxes", 4, 0.3))
    }
    return DensePredictions(priors, DeltaCodec(), maps), targets


def dense_costs(predictions, targets):
    """[R, g] of each image."""
    p, boxes = predictions.joined("logits").sigmoid().transpose(1, 2), predictions.boxes()
    for i, size in enumerate(targets.image_sizes):
        here = targets.image == i
        truths = targets.boxes[here], targets.classes[here]
        yield reference.cost_matrix(p[i], boxes[i], *truths, size, corners=True, eps=1e-8)


def check_hungarian(predictions, targets):
    pairs = Hungarian(cost=COST)(predictions, targets, score=Score(), progress=0.0).pairs
    for i, cost in enumerate(dense_costs(predictions, targets)):
        mine = pairs.image == i
        assigned = torch.full((len(cost),), -1)
        assigned[pairs.prior[mine]] = pairs.gt[mine] - sum(targets.counts[:i])
        best = reference.assign(cost)
        total = [cost[r, m[r]].double().sum() for m in (assigned, best) for r in [(m >= 0).nonzero().squeeze(1)]]
        torch.testing.assert_close(*total, rtol=1e-6, atol=1e-5)  # equal ground truths may exchange theirs
        assert mine.sum() == min(targets.counts[i], len(cost))


def check_minimum(predictions, targets):
    assignment = OneNet(cost=COST)(predictions, targets, score=Score(), progress=0.0)
    pairs = assignment.pairs
    assert pairs.gt.tolist() == list(range(len(targets)))
    assert assignment.num_positives == len(targets)
    for i, cost in enumerate(dense_costs(predictions, targets)):
        if cost.shape[1]:
            at = cost.gather(0, pairs.prior[pairs.image == i].unsqueeze(0)).squeeze(0)
            torch.testing.assert_close(at, cost.amin(0), rtol=1e-5, atol=1e-5)
    last = {location: gt for gt, location in enumerate(pairs.location(len(predictions.priors)).tolist())}
    assert assignment.classifies.nonzero().squeeze(1).tolist() == sorted(last.values())
    return assignment


@settings(max_examples=25, deadline=None)
@given(st.data(), st.sampled_from([(64, 64), (100, 190)]), st.sampled_from([1, 2, 5]))
def test_same_as_the_dense_forms(data, size, num_classes):
    kinds = data.draw(st.lists(st.lists(st.sampled_from(KINDS), max_size=8), min_size=1, max_size=3))
    scene = make_scene(data.draw(st.integers(0, 2**32 - 1)), kinds, size, num_classes)
    check_hungarian(*scene)
    check_minimum(*scene)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.lists(st.sampled_from(KINDS), max_size=8), min_size=1, max_size=2))
def test_several_priors_per_cell(seed, kinds):
    scene = make_anchor_scene(seed, kinds)
    check_hungarian(*scene)
    check_minimum(*scene)
    predictions, targets = scene
    costs = COST(predictions, targets, Score())
    expected = torch.cat([cost.T for cost in dense_costs(predictions, targets)])
    torch.testing.assert_close(costs.dense(), expected, rtol=1e-4, atol=1e-4)
    gts = torch.arange(len(targets))
    exact = costs.at(gts.unsqueeze(1), torch.arange(len(costs.prior)))
    assert (costs.bound(gts) <= exact.amin(-1)).all()


def test_of_equal_priors_the_first():
    predictions, targets = make_scene(1, [["object"], ["object"]], (64, 64))
    for name in ("logits", "boxes"):
        for level in predictions.maps[name]:
            level[...] = 0
    pairs = check_minimum(predictions, targets).pairs
    cost = next(dense_costs(predictions, targets))[:, 0]
    assert pairs.prior[0] == cost.argmin()  # of a CPU the first


def test_a_shared_prior_has_the_class_of_the_last_one_and_pulls_to_all():
    predictions, _ = make_scene(2, [["object"]], (64, 64), num_classes=3)
    targets = make_targets([[[8.0, 8.0, 40.0, 40.0]] * 3], [[0, 1, 1]], size=(64, 64))
    for level in predictions.maps["logits"]:
        level[...] = -2.0  # alike for all classes, so that all want the same
    assignment = check_minimum(predictions, targets)
    assert len(assignment.pairs.prior.unique()) == 1 and assignment.classifies.tolist() == [False, False, True]

    (criterion,) = instantiate(model_zoo.get_config("common/models/onenet_min").model.criteria)
    terms = criterion(predictions, targets, progress=0.0)
    assert {name: float(term.normaliser) for name, term in terms.items()} == dict.fromkeys(terms, 3.0)
    pair = assignment.pairs[torch.tensor([2])]
    giou = (terms["loss_giou"].numerator / 3, terms["loss_bbox"].numerator / 3)
    only = make_targets([[[8.0, 8.0, 40.0, 40.0]]], [[1]], size=(64, 64))
    one = criterion(predictions, only, progress=0.0)
    torch.testing.assert_close(giou, (one["loss_giou"].numerator, one["loss_bbox"].numerator))
    torch.testing.assert_close(terms["loss_ce"].numerator, one["loss_ce"].numerator)
    assert pair.prior == criterion.assign(predictions, only, 0.0).assignment.pairs.prior


@pytest.mark.parametrize("name", ["logits", "boxes"])
def test_nan_is_not_hidden(name):
    predictions, targets = make_scene(3, [["object", "object"]], (64, 64))
    predictions.maps[name][1][0, :, 1, 1] = torch.nan
    (criterion,) = instantiate(model_zoo.get_config("common/models/onenet_min").model.criteria)
    assert sum(reduce_losses(criterion(predictions, targets, progress=0.0)).values()).isnan()


@pytest.mark.parametrize("matcher", [Hungarian(cost=COST), OneNet()], ids=["hungarian", "min"])
def test_without_ground_truths(matcher):
    predictions, targets = make_scene(4, [[], []], (64, 64))
    assignment = matcher(predictions, targets, score=Score(), progress=0.0)
    assert len(assignment.pairs) == 0 and assignment.num_positives == 0


def test_its_own_cost():
    assert OneNet().cost == COST
