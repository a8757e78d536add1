"""FCOS, POTO, argmax, Aux and the one-to-one rules against their dense forms, and at the edges."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from la_det.matchers import FCOS, POTO, ForegroundLoss, OneToOneAnchor, OneToOneCenter, POTOAux, poto_aux
from la_det.modeling.criteria import Decision, FocalLoss
from la_det.references import poto as reference
from la_det.references.scene import (
    KINDS,
    flat,
    grid_sizes,
    make_targets,
    matched_in_image,
    random_boxes,
    random_predictions,
)
from la_det.steps.select import SIZE_RANGES
from la_det.structures import AnchorGenerator, DensePredictions, LTRBCodec, PointGenerator, Score

NUM_CLASSES = 4
SIZES = st.sampled_from([(64, 64), (128, 160), (200, 328)])
# The official code cannot tell equal quality apart either: no duplicates where a solver may choose.
DISTINCT = tuple(kind for kind in KINDS if kind not in ("duplicate", "whole"))
# Random scenes, but the same ones each time: single precision may turn a comparison once in a great many.
exact = settings(max_examples=60, deadline=None, derandomize=True)
MATCHERS = [FCOS(), POTO(), POTO(hungarian=False), ForegroundLoss(), OneToOneAnchor(), OneToOneCenter(), POTOAux()]


@st.composite
def scenes(draw, kinds=KINDS, generator_of_priors=None):
    """Predictions, targets and, per image, the ground truths' boxes and classes."""
    height, width = draw(SIZES)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    kinds = draw(st.lists(st.lists(st.sampled_from(kinds), max_size=8), min_size=1, max_size=3))
    num_classes = draw(st.sampled_from([1, NUM_CLASSES]))
    boxes = [random_boxes(generator, k, height, width) for k in kinds]
    classes = [torch.randint(num_classes, (len(b),), generator=generator) for b in boxes]
    targets = make_targets(boxes, classes, size=(height, width))
    priors = generator_of_priors and generator_of_priors(grid_sizes(height, width), torch.device("cpu"))
    return random_predictions(generator, targets, height, width, num_classes, priors), targets


def assign(matcher, predictions, targets, score=None):
    return matcher(predictions, targets, score=score or Score(), progress=0.0)


def check_matches(assignment, predictions, targets, rule):
    """`rule(image, boxes, classes)` gives the expected matches of an image."""
    actual = matched_in_image(assignment, targets, len(predictions.priors))
    pairs = assignment.pairs
    assert len(pairs) == int((actual >= 0).sum()), "a location is listed twice"
    assert torch.equal(targets.image[pairs.gt], pairs.image)
    for i in range(targets.num_images):
        here = targets.image == i
        expected = rule(i, targets.boxes[here], targets.classes[here])
        assert actual[i].tolist() == expected.tolist()


def probabilities(predictions, i, gate=None):
    p = flat(predictions, "logits")[i].sigmoid()
    return p if gate is None else p * flat(predictions, gate)[i].sigmoid()


def test_size_ranges():
    """Each begins where the one before ends, from 64 pixels on at twice the size (FCOS, section 3.2)."""
    assert SIZE_RANGES == ((-1, 64), (64, 128), (128, 256), (256, 512), (512, float("inf")))


@given(scenes(), st.sampled_from([1.5, 0.0]))
@exact
def test_fcos(scene, radius):
    predictions, targets = scene
    p = predictions.priors
    check_matches(
        assign(FCOS(center_radius=radius), predictions, targets),
        predictions,
        targets,
        lambda i, boxes, classes: reference.fcos(p.points, p.strides, p.levels, boxes, radius),
    )


def test_fcos_allows_both_ends_of_a_size_range():
    # The left side is 64 pixels from the point (68, 20) of P3 and from (72, 24) of P4: both levels may have it.
    priors = PointGenerator()(grid_sizes(128, 160), torch.device("cpu"))
    predictions = DensePredictions(priors, LTRBCodec(), {"logits": [torch.zeros(1, 1, 16, 20)]})
    for left, level in ((4.0, 0), (8.0, 1)):
        pairs = assign(FCOS(center_radius=0), predictions, make_targets([[[left, 10, 90, 30]]])).pairs
        reach = (priors.points[pairs.prior] - torch.tensor([left, 10.0])).amax(-1)
        assert (reach[priors.levels[pairs.prior] == level] == 64).any()


@given(scenes(DISTINCT), st.sampled_from([1.5, 0.0]), st.sampled_from([None, "filter"]))
@exact
def test_poto(scene, radius, gate):
    predictions, targets = scene
    boxes_of = predictions.boxes()

    def expected(i, boxes, classes):
        q = reference.quality(probabilities(predictions, i, gate), boxes_of[i], boxes, classes)
        region = reference.omega(predictions.priors.points, predictions.priors.strides, boxes, radius)
        return reference.hungarian(q.masked_fill(~region, -1))

    check_matches(assign(POTO(center_radius=radius), predictions, targets, Score(gate)), predictions, targets, expected)


@given(scenes(), st.sampled_from([1.5, 0.0]))
@exact
def test_argmax(scene, radius):
    predictions, targets = scene
    boxes_of = predictions.boxes()

    def expected(i, boxes, classes):
        q = reference.quality(probabilities(predictions, i), boxes_of[i], boxes, classes)
        return reference.argmax(
            q, reference.omega(predictions.priors.points, predictions.priors.strides, boxes, radius)
        )

    matcher = POTO(hungarian=False, center_radius=radius)
    check_matches(assign(matcher, predictions, targets), predictions, targets, expected)


@given(scenes(DISTINCT))
@exact
def test_foreground_loss(scene):
    predictions, targets = scene
    boxes_of = predictions.boxes()

    def expected(i, boxes, classes):
        cost = reference.foreground_cost(flat(predictions, "logits")[i], boxes_of[i], boxes, classes)
        region = reference.omega(predictions.priors.points, predictions.priors.strides, boxes, 1.5)
        return reference.hungarian(-cost.masked_fill(~region, 1e8))

    check_matches(assign(ForegroundLoss(), predictions, targets), predictions, targets, expected)


@given(scenes(generator_of_priors=AnchorGenerator(sizes=(4.0,))))
@exact
def test_anchor(scene):
    predictions, targets = scene
    # A box that no anchor meets has the same IoU, 0, with all of them: which one it gets has no meaning.
    met = reference.iou_matrix(targets.boxes, predictions.priors.boxes).amax(1, keepdim=True).squeeze(1) > 0
    boxes = [targets.boxes[(targets.image == i) & met] for i in range(targets.num_images)]
    targets = make_targets(boxes, size=targets.image_sizes[0])
    check_matches(
        assign(OneToOneAnchor(), predictions, targets),
        predictions,
        targets,
        lambda i, boxes, classes: reference.anchor(predictions.priors.boxes, boxes),
    )


@given(scenes())
@exact
def test_center(scene):
    predictions, targets = scene
    check_matches(
        assign(OneToOneCenter(), predictions, targets),
        predictions,
        targets,
        lambda i, boxes, classes: reference.center(predictions.priors.points, predictions.priors.levels, boxes),
    )


def test_center_may_lie_outside_its_box():
    priors = PointGenerator()(grid_sizes(128, 160), torch.device("cpu"))
    predictions = DensePredictions(priors, LTRBCodec(), {"logits": [torch.zeros(1, 1, 16, 20)]})
    pairs = assign(OneToOneCenter(), predictions, make_targets([[[0, 0, 3, 3]]])).pairs
    assert pairs.prior.tolist() == [0]
    assert priors.points[0].tolist() == [4, 4]


@given(scenes())
@exact
def test_aux(scene):
    predictions, targets = scene
    boxes_of, priors = predictions.boxes(), predictions.priors
    matched, margins = [], []
    for i in range(targets.num_images):
        here = targets.image == i
        boxes = targets.boxes[here]
        q = reference.quality(probabilities(predictions, i), boxes_of[i], boxes, targets.classes[here])
        expected, margin = reference.aux(q, priors.points, priors.levels, boxes)
        matched.append(expected)
        margins.append(margin)
    assume(min(margins) > 1e-6)
    check_matches(assign(POTOAux(), predictions, targets), predictions, targets, lambda i, boxes, classes: matched[i])


def test_aux_in_portions(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    targets = make_targets([random_boxes(generator, ["object"] * 7, 128, 160) for _ in range(2)])
    predictions = random_predictions(generator, targets, 128, 160, 1)
    whole = assign(POTOAux(), predictions, targets).pairs
    for max_pairs in (1, 3 * len(predictions.priors), 14 * len(predictions.priors)):
        monkeypatch.setattr(poto_aux, "_MAX_PAIRS", max_pairs)
        parts = assign(POTOAux(), predictions, targets).pairs
        assert all(torch.equal(a, b) for a, b in zip(vars(parts).values(), vars(whole).values(), strict=True))


def test_aux_without_any_overlap():
    """All q are 0, so is the threshold: of the first nine locations of each level, those inside the box."""
    targets = make_targets([[[0, 0, 70, 50]]])
    priors = PointGenerator()(grid_sizes(128, 160), torch.device("cpu"))
    sizes = priors.grid_sizes
    maps = {"logits": [torch.zeros(1, 1, *hw) for hw in sizes], "boxes": [torch.zeros(1, 4, *hw) for hw in sizes]}
    predictions = DensePredictions(priors, LTRBCodec(), maps)
    pairs = assign(POTOAux(), predictions, targets).pairs
    # On P3 and P4, the first of a row of 20 and 10; on P5, of rows of 5; on P6, the first of all 6.
    assert pairs.prior.tolist() == [*range(9), 320, 321, 322, 323, 400, 401, 405, 406, 420]


@pytest.mark.parametrize(("left", "positive"), [(3.995, [40]), (4.0, [])], ids=["inside", "on the border"])
def test_aux_takes_points_at_any_distance_from_the_border(left, positive):
    targets = make_targets([[[left, 0, 60, 50]]])
    priors = PointGenerator()(grid_sizes(128, 160), torch.device("cpu"))
    maps = {
        "logits": [torch.zeros(1, 1, *hw) for hw in priors.grid_sizes],
        "boxes": [torch.zeros(1, 4, *hw) for hw in priors.grid_sizes],
    }
    maps["boxes"][0][0, :, 2, 0] = torch.tensor([0.005, 20.0, 56.0, 30.0])  # of the point (4, 20)
    predictions = DensePredictions(priors, LTRBCodec(), maps)
    assert assign(POTOAux(), predictions, targets).pairs.prior.tolist() == positive


def test_foreground_loss_takes_a_candidate_however_dear():
    targets = make_targets([[[8, 8, 24, 24]]])
    predictions = random_predictions(torch.Generator().manual_seed(0), targets, 128, 160, 1)
    for logits in predictions.maps["logits"]:
        logits.fill_(-1e4)
    (prior,) = assign(ForegroundLoss(), predictions, targets).pairs.prior.tolist()
    x, y = predictions.priors.points[prior].tolist()
    assert 8 < x < 24 and 8 < y < 24


def test_dropping_unmatched_ground_truths():
    targets = make_targets([[[1, 1, 3, 3], [8, 8, 40, 40]], [[1, 1, 3, 3]]])
    predictions = random_predictions(torch.Generator().manual_seed(0), targets, 128, 160, 1)
    for matcher in (POTO, ForegroundLoss):
        assert assign(matcher(), predictions, targets).pairs.gt.tolist() == [0, 1, 2]
        assert assign(matcher(drop_unmatched=True), predictions, targets).pairs.gt.tolist() == [1]
    lone = assign(POTO(), predictions, targets).pairs
    assert lone.prior[2] == 0
    assert assign(POTO(hungarian=False), predictions, targets).pairs.gt.tolist() == [1]


@pytest.mark.parametrize("matcher", MATCHERS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("counts", [(0,), (0, 0), (0, 2, 0)])
def test_images_without_ground_truth(matcher, counts):
    generator = torch.Generator().manual_seed(0)
    targets = make_targets([random_boxes(generator, ["object"] * count, 128, 160) for count in counts])
    anchors = AnchorGenerator(sizes=(4.0,))(grid_sizes(128, 160), torch.device("cpu"))
    predictions = random_predictions(generator, targets, 128, 160, 1, anchors)
    pairs = assign(matcher, predictions, targets).pairs
    assert set(pairs.image.tolist()) <= {i for i, count in enumerate(counts) if count}
    assert all(x.dtype == torch.int64 for x in vars(pairs).values())


def with_nan(name):
    """A scene whose predictions of the locations around the only ground truth's centre are NaN."""
    targets = make_targets([[[8, 8, 120, 120]]])
    predictions = random_predictions(torch.Generator().manual_seed(0), targets, 128, 160, 1)
    for level in predictions.maps[name]:
        level[:, :, level.shape[2] // 2, level.shape[3] // 2] = torch.nan
    return predictions, targets


@pytest.mark.parametrize("matcher", [POTO(), ForegroundLoss()], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("name", ["logits", "boxes"])
def test_nan_fails_loudly(matcher, name):
    with pytest.raises(FloatingPointError, match="NaN or infinite matching values"):
        assign(matcher, *with_nan(name))


def test_aux_lets_nan_show_in_the_losses():
    """NaN boxes, which its losses do not read, stop POTO, which is trained beside it."""
    predictions, targets = with_nan("logits")
    decision = Decision(predictions, targets, assign(POTOAux(), predictions, targets), Score())
    assert FocalLoss()(decision).numerator.isnan()


@pytest.mark.parametrize("name", ["logits", "boxes"])
def test_argmax_lets_nan_show_in_the_losses(name):
    predictions, targets = with_nan(name)
    pairs = assign(POTO(hungarian=False), predictions, targets).pairs
    assert predictions.at(name, pairs.image, pairs.prior).isnan().all()
