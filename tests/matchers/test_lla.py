"""LLA against the dense version in la_det/references/lla.py, its ignored ground truths, and the edges."""

from dataclasses import replace

import pytest
import torch
from detectron2.config import instantiate
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from la_det import model_zoo
from la_det.matchers import LLA, lla
from la_det.modeling.criteria import reduce_losses
from la_det.references import lla as reference
from la_det.references.scene import (
    KINDS,
    flat,
    grid_sizes,
    make_targets,
    matched_in_image,
    random_boxes,
    random_predictions,
)
from la_det.structures import DensePredictions, LTRBCodec, Pairs, PointGenerator, Score

# Beyond this the order of two costs is the same in single precision, also where they exceed 1000.
MARGIN = 3e-4


def make_scene(seed, kinds_per_image, size=(96, 136), num_classes=3, strides=(8, 16, 32, 64, 128)):
    generator = torch.Generator().manual_seed(seed)
    boxes = [random_boxes(generator, kinds, *size) for kinds in kinds_per_image]
    classes = [torch.randint(num_classes, (len(b),), generator=generator) for b in boxes]
    for kinds, c in zip(kinds_per_image, classes, strict=True):
        for i, kind in enumerate(kinds[1:], start=1):
            if kind == "duplicate":
                c[i] = c[i - 1]
    targets = make_targets(boxes, classes, size)
    priors = PointGenerator(strides=strides, offset=0.0)(grid_sizes(*size, strides), torch.device("cpu"))
    return random_predictions(generator, targets, *size, num_classes, priors), targets


def assign(predictions, targets, **options):
    return LLA(**options)(predictions.detach(), targets, score=Score(), progress=0.0)


def expected(predictions, targets, k=10):
    """[N, R] matches within the image, and the smallest margin of their decisions."""
    matched, margins = [], []
    for i in range(targets.num_images):
        here = targets.image == i
        logits, ltrb = flat(predictions, "logits")[i].double(), flat(predictions, "boxes")[i].double()
        points, boxes = predictions.priors.points.double(), targets.boxes[here].double()
        cost = reference.costs(logits, ltrb, points, boxes, targets.classes[here])
        m, margin = reference.assign(cost, k)
        matched.append(m)
        margins.append(margin)
    return torch.stack(matched), min(margins)


def check(predictions, targets, **options):
    matched, margin = expected(predictions, targets, options.get("topk", 10))
    assume(margin > MARGIN)
    actual = matched_in_image(assign(predictions, targets, **options), targets, len(predictions.priors))
    assert torch.equal(actual, matched)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.lists(st.sampled_from(KINDS), max_size=8), min_size=1, max_size=3),
    st.sampled_from([(64, 64), (96, 136)]),
    st.sampled_from([1, 3]),
)
def test_same_as_the_dense_version(seed, kinds, size, num_classes):
    check(*make_scene(seed, kinds, size, num_classes))


@pytest.mark.parametrize("seed", range(3))
def test_in_portions(seed, monkeypatch):
    """Tiny ground truths that want the same locations, looked at one by one."""
    scene = make_scene(seed, [["tiny", "duplicate", "tiny", "object"] * 3, ["tiny"] * 4])
    whole = matched_in_image(assign(*scene), scene[1], len(scene[0].priors))
    monkeypatch.setattr(lla, "_MAX_PAIRS", 1)
    portions = matched_in_image(assign(*scene), scene[1], len(scene[0].priors))
    assert torch.equal(whole, portions)


def test_fewer_locations_than_k():
    predictions, targets = make_scene(0, [["object"], ["tiny", "huge"], []], (64, 64), strides=(32, 64))
    assert len(predictions.priors) == 5
    check(predictions, targets)
    (first,) = (assign(predictions, targets).pairs.image == 0).nonzero(as_tuple=True)
    assert len(first) == 5


@pytest.mark.parametrize("logit", [-3900.0, -3960.0, -4000.0, -4200.0])
def test_extreme_logits_can_make_inside_dearer_than_outside(logit):
    """Costs about 1000 inside compete with those of the best locations outside."""
    predictions, targets = make_scene(1, [["object", "object"]], num_classes=1)
    priors, gt = predictions.priors, targets.boxes[0]
    inside = ((priors.points > gt[:2]) & (priors.points < gt[2:])).all(1)
    assert inside.sum() > 10
    rows = torch.where(inside, logit - torch.arange(len(priors)) * 0.7, flat(predictions, "logits")[0, :, 0])
    sizes = [h * w for h, w in priors.grid_sizes]
    logits = [x.view(1, 1, h, w) for x, (h, w) in zip(rows.split(sizes), priors.grid_sizes, strict=True)]
    predictions = replace(predictions, maps=predictions.maps | {"logits": logits})
    matched, margin = expected(predictions, targets)
    assert margin > MARGIN
    assert torch.equal(matched_in_image(assign(predictions, targets), targets, len(priors)), matched)


def test_extreme_logits_can_give_a_location_inside_to_a_ground_truth_elsewhere():
    predictions, targets = make_scene(2, [["object", "object"]], num_classes=2)
    targets = replace(targets, classes=torch.tensor([0, 1]))
    predictions.maps["logits"][0][:, 0] = -4200.0
    options = dict(topk=len(predictions.priors))  # both take every location
    check(predictions, targets, **options)
    pairs = assign(predictions, targets, **options).pairs
    points = predictions.priors.points[pairs.prior]
    first, second = (((points > b[:2]) & (points < b[2:])).all(1) for b in targets.boxes)
    only_first = first & ~second & (pairs.prior < predictions.priors.level_starts[1])
    assert only_first.any() and (pairs.gt[only_first] == 1).all()


def test_a_location_goes_to_a_ground_truth_that_did_not_take_it():
    """The first prefers a location outside the others; both others take the one that fits the first one better."""
    priors = PointGenerator(strides=(8,), offset=0.0)([(8, 8)], torch.device("cpu"))
    gts = [[4.0, 4.0, 60.0, 60.0], [12.0, 4.0, 60.0, 60.0], [12.0, 4.0, 60.0, 61.0]]
    targets = make_targets([gts], size=(64, 64))
    only_first, common = 4 * 8 + 1, 4 * 8 + 4  # (8, 32) and (32, 32)
    logits, ltrb = torch.full((64,), -2.0), torch.zeros(4, 64)
    logits[only_first] = 8.0
    for location in (only_first, common):
        ltrb[:, location] = torch.cat([priors.points[location] - 4, 60 - priors.points[location]])
    maps = {"logits": [logits.view(1, 1, 8, 8)], "boxes": [ltrb.view(1, 4, 8, 8)]}
    predictions = DensePredictions(priors, LTRBCodec(), maps)
    pairs = assign(predictions, targets, topk=1).pairs
    assert sorted(zip(pairs.prior.tolist(), pairs.gt.tolist(), strict=True)) == [(only_first, 0), (common, 0)]


@pytest.mark.parametrize("kinds", [[[]], [[], ["object", "tiny"], []]])
def test_images_without_ground_truth(kinds):
    predictions, targets = make_scene(3, kinds)
    check(predictions, targets)


@pytest.mark.parametrize("name", ["logits", "boxes"])
def test_nan_is_not_hidden(name):
    """Even if several ground truths want a location and none costs less than another."""
    predictions, targets = make_scene(4, [["object", "duplicate", "duplicate"]])
    predictions.maps[name][0][:] = torch.nan
    criterion = make_criterion()
    losses = reduce_losses(criterion(predictions, targets, progress=0.0))
    assert losses["loss_cls" if name == "logits" else "loss_box_reg"].isnan()


def make_criterion(name="LLA/lla_r50_fpn_30k_crowdhuman"):
    (criterion,) = instantiate(model_zoo.get_config(name).model.criteria)
    return criterion


def test_ignored_ground_truths_take_locations_and_count():
    predictions, targets = make_scene(5, [["object", "object", "tiny"], ["object"]], num_classes=1)
    everything = assign(predictions, targets)
    targets = replace(targets, ignored=torch.tensor([True, False, False, False]))
    criterion = make_criterion()
    assignment = criterion.assign(predictions, targets, progress=0.0).assignment
    of_ignored = everything.pairs.gt == 0
    assert of_ignored.any()
    assert set(zip(*(x.tolist() for x in assignment.dropped), strict=True)) == set(
        zip(everything.pairs.image[of_ignored].tolist(), everything.pairs.prior[of_ignored].tolist(), strict=True)
    )
    assert torch.equal(assignment.pairs.gt, everything.pairs.gt[~of_ignored])
    assert assignment.num_positives == len(everything.pairs)

    # Neither the dropped logits nor their boxes and IoU logits matter.
    leaves = {name: [x.clone().requires_grad_() for x in levels] for name, levels in predictions.maps.items()}
    losses = reduce_losses(criterion(replace(predictions, maps=leaves), targets, progress=0.0))
    sum(losses.values()).backward()
    image, prior = assignment.dropped
    for name in ("logits", "boxes", "quality"):
        grad = torch.cat([x.grad.flatten(2) for x in leaves[name]], 2)
        assert (grad[image, :, prior] == 0).all()
        assert grad.any()


def test_image_of_ignored_ground_truths_only():
    predictions, targets = make_scene(6, [["object", "object"]], num_classes=1)
    targets = replace(targets, ignored=torch.tensor([True, True]))
    terms = make_criterion()(predictions, targets, progress=0.0)
    assert all(term.normaliser > 0 for term in terms.values())
    losses = reduce_losses(terms)
    assert losses["loss_cls"] > 0
    assert losses["loss_box_reg"] == 0 and losses["loss_iou"] == 0


def test_batch_without_ground_truth_is_divided_by_one():
    predictions, targets = make_scene(7, [[], []], num_classes=1)
    terms = make_criterion()(predictions, targets, progress=0.0)
    losses = reduce_losses(terms)
    assert losses["loss_cls"] == terms["loss_cls"].numerator > 0
    assert losses["loss_box_reg"] == 0 and losses["loss_iou"] == 0


@pytest.mark.parametrize("name", ["lla_fcos", "lla_atss"])
def test_baselines_do_not_count_ignored_ground_truths(name):
    """Their anchors, where they have some, lie around the same points."""
    config = model_zoo.get_config(f"LLA/{name}_r50_fpn_30k_crowdhuman").model
    predictions, targets = make_scene(8, [["object", "object", "object"], []], num_classes=1)
    priors = instantiate(config.head.predictors.main.priors)(predictions.priors.grid_sizes, torch.device("cpu"))
    assert torch.equal(priors.points, predictions.priors.points)
    predictions = replace(predictions, priors=priors)
    (criterion,) = instantiate(config.criteria)
    everything = criterion.assign(predictions, targets, progress=0.0).assignment
    ignored = torch.tensor([False, True, False])
    assignment = criterion.assign(predictions, replace(targets, ignored=ignored), progress=0.0).assignment
    assert len(assignment.dropped[0]) == int((everything.pairs.gt == 1).sum()) > 0
    assert assignment.num_positives == len(assignment.pairs) == int((everything.pairs.gt != 1).sum())


@pytest.mark.parametrize("distance, is_inside", [(0.005, False), (0.02, True), (-1.0, False)])
def test_inside_is_more_than_a_hundredth_of_a_pixel(distance, is_inside):
    predictions, _ = make_scene(9, [["object"]], num_classes=1)
    targets = make_targets([[[16 - distance, 4.0, 60.0, 60.0]]])
    cost = LLA().joint_cost(predictions.detach(), targets, Score())
    at_16_16 = torch.tensor([2 * predictions.priors.grid_sizes[0][1] + 2])
    zero = torch.zeros_like(at_16_16)
    assert (cost(Pairs(zero, at_16_16, zero)) < 1000) == is_inside
