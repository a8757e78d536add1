"""SimOTA against the dense version in la_det/references/simota.py by both rules, and the edges."""

from dataclasses import replace

import pytest
import torch
from detectron2.config import instantiate
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from la_det import model_zoo
from la_det.losses.cross_entropy import background_cross_entropy
from la_det.matchers import SimOTA
from la_det.modeling.criteria import reduce_losses
from la_det.references import simota as reference
from la_det.references.scene import (
    KINDS,
    flat,
    grid_sizes,
    make_targets,
    matched_in_image,
    random_boxes,
    random_predictions,
)
from la_det.structures import DensePredictions, LTRBCodec, PointGenerator, Score

SCORE = Score(gate="quality", square_root=True)
SQUARE = dict(center_radius=1.5, inside_box=False, iou_eps=1e-8)
RULES = pytest.mark.parametrize("options", [{}, SQUARE], ids=["released", "square"])


def make_scene(seed, kinds_per_image, size=(96, 136), num_classes=3, strides=(8, 16, 32, 64, 128)):
    generator = torch.Generator().manual_seed(seed)
    boxes = [random_boxes(generator, kinds, *size) for kinds in kinds_per_image]
    classes = [torch.randint(num_classes, (len(b),), generator=generator) for b in boxes]
    targets = make_targets(boxes, classes, size)
    priors = PointGenerator(strides=strides)(grid_sizes(*size, strides), torch.device("cpu"))
    return random_predictions(generator, targets, *size, num_classes, priors), targets


def assign(predictions, targets, **options):
    return SimOTA(**options)(predictions.detach(), targets, score=SCORE, progress=0.0)


def expected(predictions, targets, options):
    """[N, R] matches within the image, in double precision."""
    priors, matched = predictions.priors, []
    for i in range(targets.num_images):
        here = targets.image == i
        q = flat(predictions, "logits")[i].double().sigmoid() * flat(predictions, "quality")[i].double().sigmoid()
        boxes, gts = predictions.boxes()[i].double(), targets.boxes[here].double()
        place = priors.points.double(), priors.strides.double()
        matched.append(reference.assign(q.sqrt(), boxes, *place, gts, targets.classes[here], SimOTA(**options)))
    return torch.stack(matched)


def check(predictions, targets, **options):
    """Equal but for sums of IoUs that are nearly whole numbers."""
    matcher, priors = SimOTA(**options), predictions.priors
    _, _, valid = matcher.regions(priors, targets)
    for i in range(targets.num_images):
        gts = targets.boxes[targets.image == i].double()
        if len(gts) and valid[i].any():
            iou = reference.iou_matrix(gts, predictions.boxes()[i].double())[:, valid[i]]
            total = iou.topk(min(matcher.topk, iou.shape[1]), 1).values.sum(1)
            if ((total - total.round()).abs() < 1e-5).logical_and(total.round() > 1).any():
                assume(False)
    assignment = assign(predictions, targets, **options)
    actual = matched_in_image(assignment, targets, len(priors))
    assert torch.equal(actual, expected(predictions, targets, options))
    pairs = assignment.pairs
    assert len(torch.unique(pairs.location(len(priors)))) == len(pairs)
    base = background_cross_entropy(predictions.detach(), SCORE)
    _, iou = matcher.cost(predictions.detach(), targets, SCORE, base, pairs)
    assert torch.equal(assignment.target, iou)
    return actual


@RULES
@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.lists(st.sampled_from([k for k in KINDS if k != "degenerate"]), max_size=8), min_size=1, max_size=3),
    st.sampled_from([(64, 64), (96, 136)]),
    st.sampled_from([1, 3]),
)
def test_same_as_the_dense_version(options, seed, kinds, size, num_classes):
    check(*make_scene(seed, kinds, size, num_classes), **options)


@RULES
def test_start_of_a_training(options):
    """All predicted boxes are without area: every cost that is not a ground truth's own may be the cheapest."""
    predictions, targets = make_scene(0, [["object", "tiny", "huge", "tiny"], ["object"]])
    for boxes in predictions.maps["boxes"]:
        boxes.zero_()
    check(predictions, targets, **options)


def test_a_ground_truth_between_the_points():
    """It has no location of its own, and takes a cheap one of those that others have or surround."""
    predictions, _ = make_scene(1, [["object"]])
    targets = make_targets([[[17.0, 17.0, 19.0, 19.0], [20.0, 20.0, 90.0, 90.0]], [[17.0, 17.0, 19.0, 19.0]]])
    predictions = predictions.of_images(torch.tensor([0, 0]))
    matched = check(predictions, targets)
    assert (matched[0] == 0).sum() == 1
    # Alone in its image it has the square around it.
    assert (matched[1] == 0).sum() == 1


def test_a_contested_location_may_go_to_a_ground_truth_that_did_not_take_it():
    """The third takes a cheaper location than the one that both others take, which costs it less than them."""
    priors = PointGenerator(strides=(8,))([(4, 4)], torch.device("cpu"))
    gts = [[8.0, 8.0, 16.0, 16.0], [8.0, 8.0, 16.0, 17.0], [0.0, 8.0, 16.0, 16.0]]
    targets = make_targets([gts], [[0, 0, 1]], size=(32, 32))
    cheap, contested = (0, slice(None), 1, 0), (0, slice(None), 1, 1)  # at (4, 12) and (12, 12)
    ltrb, logits = torch.zeros(1, 4, 4, 4), torch.full((1, 2, 4, 4), -3.0)
    ltrb[cheap], ltrb[contested] = torch.tensor([4.0, 4.0, 11.0, 4.0]), torch.tensor([12.0, 4.0, 3.5, 4.0])
    logits[cheap] = torch.tensor([-3.0, 3.0])
    maps = {"logits": [logits], "boxes": [ltrb], "quality": [torch.zeros(1, 1, 4, 4)]}
    matched = check(DensePredictions(priors, LTRBCodec(), maps), targets, center_radius=0.75)
    assert matched[0, 4] == matched[0, 5] == 2 and (matched[0] >= 0).sum() == 2


def test_no_location_is_valid():
    """The centre lies off the grid: YOLOX stops with an error there, MMDetection has no positives."""
    predictions, _ = make_scene(2, [["object"]])
    targets = make_targets([[[500.0, 500.0, 520.0, 520.0]]])
    assert len(assign(predictions, targets, **SQUARE).pairs) == 0
    check(predictions, targets)


def test_fewer_valid_locations_than_k():
    predictions, targets = make_scene(3, [["object", "object", "whole"]], (64, 64), strides=(32, 64))
    check(predictions, targets, topk=3)
    assert len(assign(predictions, targets).pairs) <= len(predictions.priors)


@pytest.mark.parametrize("options", [{"center_radius": 1.0}, {"topk": 2}, {"box_weight": 0.5}, {"inside_box": False}])
def test_every_option_is_used(options):
    scene = make_scene(4, [["object"] * 6 + ["tiny"], ["huge", "object", "object"]])
    assert not torch.equal(check(*scene, **options), check(*scene))


@RULES
@pytest.mark.parametrize("kinds", [[[]], [[], []], [[], ["object", "tiny"], []]])
def test_images_without_ground_truth(options, kinds):
    check(*make_scene(5, kinds), **options)


def make_criterion(name="simota"):
    (criterion,) = instantiate(model_zoo.get_config(f"OTA/{name}_r50_fpn_1x_coco").model.criteria)
    return criterion


@pytest.mark.parametrize("name", ["logits", "boxes", "quality"])
def test_nan_is_not_hidden(name):
    predictions, targets = make_scene(6, [["object", "duplicate", "object"]])
    predictions.maps[name][0][:] = torch.nan
    losses = reduce_losses(make_criterion()(predictions, targets, progress=0.0))
    loss = {"logits": "loss_cls", "boxes": "loss_iou", "quality": "loss_obj"}[name]
    assert losses[loss].isnan()


def test_batch_without_ground_truth():
    """Only the objectness has a loss, a raw sum; every map has a gradient nevertheless."""
    predictions, targets = make_scene(7, [[], []])
    leaves = {name: [x.requires_grad_() for x in levels] for name, levels in predictions.maps.items()}
    terms = make_criterion()(predictions, targets, progress=0.0)
    losses = reduce_losses(terms)
    assert losses["loss_obj"] == terms["loss_obj"].numerator > 0
    assert losses["loss_iou"] == losses["loss_cls"] == 0
    sum(losses.values()).backward()
    assert all(x.grad is not None for name in ("logits", "boxes", "quality") for x in leaves[name])


def test_normalisers_of_the_two_codes():
    predictions, targets = make_scene(8, [["object"], ["object"]])
    for name, scope in (("simota", "world"), ("simota_square", "local")):
        terms = make_criterion(name)(predictions, targets, progress=0.0)
        assert {term.scope for term in terms.values()} == {scope}
        assert {term.floor for term in terms.values()} == {1.0}


def test_only_images_with_doubtful_ground_truths_are_looked_at_as_a_whole(monkeypatch):
    predictions, _ = make_scene(9, [["object"], ["object"]])
    alone = [[17.0, 17.0, 19.0, 19.0]]
    targets = make_targets([[[20.0, 20.0, 90.0, 90.0]], alone])
    for boxes in predictions.maps["boxes"]:
        boxes[1].zero_()
    seen = []
    original = SimOTA.select

    def select(self, pairs, *arguments):
        seen.append(set(pairs.image.tolist()))
        return original(self, pairs, *arguments)

    monkeypatch.setattr(SimOTA, "select", select)
    check(predictions, targets)
    assert seen[0] == {0, 1} and seen[1] == {1}


def test_ignored_ground_truths_take_no_part():
    predictions, targets = make_scene(10, [["object", "object"], ["object"]])
    ignored = replace(targets, ignored=torch.tensor([True, False, False]))
    decision = make_criterion().assign(predictions, ignored, progress=0.0)
    assert len(decision.targets) == 2 and decision.assignment.dropped is None
