"""TOOD's and YOLO's task-aligned assignment against their dense forms, and at the edges."""

from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from la_det.matchers import ATSS, TAL, TOOD, Switch, matcher_at
from la_det.references import tood as reference
from la_det.references.image import images
from la_det.references.scene import (
    KINDS,
    grid_sizes,
    make_targets,
    matched_in_image,
    random_boxes,
    random_predictions,
)
from la_det.steps.candidates import inside_box
from la_det.structures import AnchorGenerator, DensePredictions, PointGenerator, Score, Targets, chunks

GATED, PLAIN = Score(gate="quality", square_root=True), Score()
NUM_CLASSES = 3
TOOD_PRIORS = AnchorGenerator(sizes=(8.0,), offset=0.0)
# Random scenes, but the same ones each time: single precision may turn a comparison once in a great many.
exact = settings(max_examples=60, deadline=None, derandomize=True)


@st.composite
def scenes(draw, generator_of_priors):
    """Predictions, some of whose boxes have changed sides, and targets of images of several sizes."""
    height, width = draw(st.sampled_from([(64, 64), (128, 160), (200, 328)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    kinds = draw(st.lists(st.lists(st.sampled_from(KINDS), max_size=8), min_size=1, max_size=3))
    boxes = [random_boxes(generator, k, height, width) for k in kinds]
    classes = [torch.randint(NUM_CLASSES, (len(b),), generator=generator) for b in boxes]
    targets = make_targets(boxes, classes, size=(height, width))
    sizes = [draw(st.sampled_from([(height, width), (height // 2, width), (20, 40)])) for _ in kinds]
    priors = generator_of_priors(grid_sizes(height, width), torch.device("cpu"))
    predictions = random_predictions(generator, targets, height, width, NUM_CLASSES, priors)
    for x in predictions.maps["boxes"]:
        x[torch.rand(x.shape, generator=generator) < 0.03] *= -1
    return predictions, replace(targets, image_sizes=tuple(sizes))


def assign(matcher, predictions, targets, score):
    return matcher(replace(predictions), targets, score=score, progress=1.0)  # the maps may have changed


def check(assignment, predictions, targets, expected):
    """Matches and soft targets of each image against `expected(image)`."""
    matched = matched_in_image(assignment, targets, len(predictions.priors))
    target = torch.zeros(matched.shape)
    target[assignment.pairs.image, assignment.pairs.prior] = assignment.target
    assert len(assignment.pairs) == int((matched >= 0).sum()), "a location is listed twice"
    for i, x in enumerate(expected):
        assert matched[i].tolist() == x[0].tolist()
        torch.testing.assert_close(target[i], x[1], rtol=1e-5, atol=1e-6)


def tood_of(predictions, targets, matcher):
    return [
        reference.tood(x.p, x.boxes, x.priors.points, x.begins_inside(32), x.gts, x.classes, matcher.topk)
        for x in images(GATED, predictions, targets)
    ]


def tal_of(predictions, targets, matcher):
    return [
        reference.tal(x.p, x.boxes, x.priors.points, x.gts, x.classes, matcher.topk)
        for x in images(PLAIN, predictions, targets)
    ]


@given(scenes(TOOD_PRIORS), st.sampled_from([13, 3]))
@exact
def test_tood(scene, topk):
    """Also where whole runs of locations are looked at, as on a GPU."""
    matcher = TOOD(topk=topk)
    expected = tood_of(*scene, matcher)
    check(assign(matcher, *scene, GATED), *scene, expected)
    with patch.object(chunks, "in_chunks", lambda device: False):
        check(assign(matcher, *scene, GATED), *scene, expected)


@given(scenes(PointGenerator()), st.sampled_from([10, 1]))
@exact
def test_tal(scene, topk):
    matcher = TAL(topk=topk)
    check(assign(matcher, *scene, PLAIN), *scene, tal_of(*scene, matcher))


def scene_of(boxes, classes=None, size=(128, 160), priors=TOOD_PRIORS, seed=0) -> tuple[DensePredictions, Targets]:
    targets = make_targets(boxes, classes, size)
    priors = priors(grid_sizes(*size), torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    return random_predictions(generator, targets, *size, NUM_CLASSES, priors), targets


def perfect(predictions, targets):
    """Every location predicts the first ground truth of its image; those inside it find every class likely."""
    priors, counts = predictions.priors, targets.counts
    first = targets.boxes[[sum(counts[:i]) for i in range(len(counts))]]
    raw = predictions.codec.encode(first.unsqueeze(1).expand(-1, len(priors), -1), priors, None)
    inside = ((priors.points > first[:, None, :2]) & (priors.points < first[:, None, 2:])).all(-1)
    logits = torch.where(inside, 2.0, -3.0).unsqueeze(-1)
    rows = {"boxes": raw, "logits": logits.expand(-1, -1, NUM_CLASSES), "quality": logits}
    sizes = priors.grid_sizes
    maps = {
        name: [
            x.unflatten(2, size).contiguous()
            for x, size in zip(x.transpose(1, 2).split([h * w for h, w in sizes], 2), sizes, strict=True)
        ]
        for name, x in rows.items()
    }
    return replace(predictions, maps=maps)


@pytest.mark.parametrize(("matcher", "score"), [(TOOD(), GATED), (TAL(), PLAIN), (TAL(topk=1), PLAIN)])
class TestEdges:
    def test_no_ground_truth_in_one_image_and_in_all(self, matcher, score):
        for boxes in ([[], [[10, 10, 60, 70]]], [[], []]):
            predictions, targets = scene_of(boxes)
            assignment = assign(matcher, predictions, targets, score)
            assert set(assignment.pairs.image.tolist()) <= {1}
            assert len(assignment.target) == len(assignment.pairs)

    def test_ground_truths_that_cannot_have_positives(self, matcher, score):
        """Between the points, without area, and outside of the image."""
        boxes = [[[9, 9, 11, 11], [20, 20, 20, 90], [500, 500, 600, 600]]]
        assert len(assign(matcher, *scene_of(boxes), score).pairs) == 0

    def test_fewer_locations_than_taken(self, matcher, score):
        """64 x 64 pixels have locations enough, one level of 8 x 8 cells has not."""
        predictions, targets = scene_of([[[1, 1, 62, 62]]], size=(64, 64))
        one = PointGenerator(strides=(32,), offset=getattr(predictions.priors, "offset", 0.5))
        priors = one([(2, 2)], torch.device("cpu"))
        maps = {name: [torch.full((1, c, 2, 2), 8.0)] for name, c in (("logits", 3), ("boxes", 4), ("quality", 1))}
        predictions = perfect(DensePredictions(priors, predictions.codec, maps), targets)
        assert len(assign(matcher, predictions, targets, score).pairs) == min(getattr(matcher, "topk", 13), 1)

    def test_a_diverged_prediction_is_not_hidden(self, matcher, score):
        predictions, targets = scene_of([[[10, 10, 120, 110]]])
        predictions.maps["boxes"][0][0, :, 6, 6] = torch.nan
        assignment = assign(matcher, predictions, targets, score)
        assert assignment.target.isnan().any()
        assert 6 * 20 + 6 in assignment.pairs.prior.tolist()

    def test_equal_ground_truths_go_to_the_first(self, matcher, score):
        box = [10.0, 10.0, 110.0, 100.0]
        predictions, targets = scene_of([[box, box]], [[1, 1]])
        pairs = assign(matcher, predictions, targets, score).pairs
        assert len(pairs) > 0 and not pairs.gt.any()

    def test_the_best_target_is_the_largest_overlap(self, matcher, score):
        predictions, targets = scene_of([[[10, 10, 110, 100]]])
        assignment = assign(matcher, perfect(predictions, targets), targets, score)
        assert assignment.target.max().item() == pytest.approx(1, abs=1e-4)


def test_locations_outside_take_places_away():
    """13 locations of P3 outside the box predict it best; TOOD gives it nothing, while YOLO's rule never sees them."""
    predictions, targets = scene_of([[[40, 40, 80, 80]]], priors=TOOD_PRIORS)
    predictions = perfect(predictions, targets)
    for name in ("logits", "quality"):
        predictions.maps[name][0][:, :, 0, :13] = 5.0
    assert len(assign(TOOD(), predictions, targets, GATED).pairs) == 0
    predictions.maps["logits"][0][:, :, 0, 0] = -9.0
    assert len(assign(TOOD(), predictions, targets, GATED).pairs) == 1
    assert len(assign(TAL(), predictions, targets, PLAIN).pairs) == 10


@pytest.mark.parametrize("distance", [0.0, 0.005, 0.02])
def test_tood_wants_points_more_than_a_hundredth_of_a_pixel_inside(distance):
    """The point (40, 40) lies so far from the left and the upper side; others are further inside."""
    predictions, targets = scene_of([[[40 - distance, 40 - distance, 47, 47]]])
    pairs = assign(TOOD(), perfect(predictions, targets), targets, GATED).pairs
    assert (5 * 20 + 5 in pairs.prior.tolist()) == (distance > 0.01)


def test_tal_wants_points_strictly_inside():
    predictions, targets = scene_of([[[44.0, 44.0, 70.0, 70.0]]], priors=PointGenerator())
    pairs = assign(TAL(), perfect(predictions, targets), targets, PLAIN).pairs
    points = predictions.priors.points[pairs.prior]
    assert len(pairs) > 0 and (points > 44).all()


def test_a_third_ground_truth_can_take_a_contested_location():
    """The one with the largest overlap, though its few places went to others."""
    boxes = [[[0.0, 0.0, 64.0, 64.0], [0.0, 0.0, 62.0, 62.0], [4.0, 4.0, 60.0, 60.0]]]
    predictions, targets = scene_of(boxes, [[0, 1, 2]], size=(64, 64), priors=PointGenerator())
    third = replace(targets, boxes=targets.boxes[2:], classes=targets.classes[2:], image=targets.image[2:], counts=(1,))
    predictions = perfect(predictions, third)
    for level, x in enumerate(predictions.maps["logits"]):
        x[:] = -6.0
        if level == 0:
            x[:, :2, 4, 4] = 6.0  # the first two want this location
            x[:, 2, 2, 2] = 6.0  # the third one another
    pairs = assign(TAL(topk=1), predictions, targets, PLAIN).pairs
    assert sorted(zip(pairs.prior.tolist(), pairs.gt.tolist(), strict=True)) == [(2 * 8 + 2, 2), (4 * 8 + 4, 2)]


def test_candidates_are_found_once_for_both_branches():
    predictions, targets = scene_of([[[10, 10, 60, 70]]], priors=PointGenerator())
    with patch("la_det.matchers.tal.inside_box", side_effect=inside_box) as spy:
        for topk in (1, 10):
            assign(TAL(topk=topk), predictions, targets, PLAIN)
        assert spy.call_count == 1
        assign(TAL(), predictions, replace(targets), PLAIN)
        assert spy.call_count == 2


def test_locations_beyond_an_image_take_no_part():
    """The second image is half as high, so its lower locations are none, wherever its ground truth reaches."""
    box = [10.0, 10.0, 100.0, 120.0]
    predictions, targets = scene_of([[box], [box]])
    targets = replace(targets, image_sizes=((128, 160), (60, 160)))
    predictions = perfect(predictions, targets)
    predictions.maps["logits"][0][:, :, 9:] += 1.0
    pairs = assign(TOOD(), predictions, targets, GATED).pairs
    rows = predictions.priors.points[pairs.prior, 1]
    assert (rows[pairs.image == 0] >= 72).all() and (rows[pairs.image == 1] < 64).all()
    dropped = assign(ATSS(pad_to=32), predictions, targets, GATED).dropped
    assert set(dropped[0].tolist()) == {1}
    assert (predictions.priors.points[dropped[1], 1] >= 64).all()
    assert len(dropped[0]) == 8 * 20 + 4 * 10 + 2 * 5 + 1 * 3


def test_atss_of_a_small_image_does_not_depend_on_the_batch():
    """Its candidates are those that it would have alone, also where a level has fewer than 9."""
    boxes = [[[20.0, 20.0, 110.0, 100.0], [5.0, 30.0, 40.0, 70.0]], [[30.0, 8.0, 90.0, 50.0]]]
    predictions, targets = scene_of(boxes, size=(256, 320))
    batch = replace(targets, image_sizes=((256, 320), (60, 100)))
    alone, only = scene_of(boxes[1:], size=(64, 128))
    matcher = ATSS(pad_to=32)
    pairs = assign(matcher, predictions, batch, GATED).pairs
    here = pairs.image == 1
    found = {tuple(x) for x in predictions.priors.points[pairs.prior[here]].tolist()}
    levels = sorted(predictions.priors.levels[pairs.prior[here]].tolist())
    expected = assign(matcher, alone, only, GATED)
    assert expected.dropped is None and len(found) > 0
    assert found == {tuple(x) for x in alone.priors.points[expected.pairs.prior].tolist()}
    assert levels == sorted(alone.priors.levels[expected.pairs.prior].tolist())
    assert found != {
        tuple(x) for x in predictions.priors.points[assign(ATSS(), predictions, batch, GATED).pairs.prior].tolist()
    }


def test_switch():
    """At its progress the second one decides, and both may be switches themselves."""
    first, then = ATSS(), TOOD()
    switch = Switch(first=first, then=then, at=4 / 12)
    steps = 87960
    assert matcher_at(switch, 0.0) is matcher_at(switch, (29320 - 1) / steps) is first
    assert matcher_at(switch, 29320 / steps) is matcher_at(switch, 1.0) is then
    assert matcher_at(Switch(first=switch, then=TAL(), at=0.5), 0.4) is then
    predictions, targets = scene_of([[[10, 10, 60, 70]]])
    assert switch(predictions, targets, score=GATED, progress=0.0).target is None
    assert switch(predictions, targets, score=GATED, progress=1.0).target is not None
