"""OTA against the dense version in la_det/references/ota.py, its constants, and the edges."""

from dataclasses import replace

import pytest
import torch
from detectron2.config import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st

from la_det import model_zoo
from la_det.matchers import OTA
from la_det.modeling.criteria import reduce_losses
from la_det.references import ota as reference
from la_det.references.scene import (
    KINDS,
    flat,
    grid_sizes,
    make_targets,
    matched_in_image,
    random_boxes,
    random_predictions,
)
from la_det.steps.select import Transport
from la_det.structures import PointGenerator, Score


def make_scene(seed, kinds_per_image, size=(96, 136), num_classes=3, strides=(8, 16, 32, 64, 128), offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    boxes = [random_boxes(generator, kinds, *size) for kinds in kinds_per_image]
    classes = [torch.randint(num_classes, (len(b),), generator=generator) for b in boxes]
    for kinds, c in zip(kinds_per_image, classes, strict=True):
        for i, kind in enumerate(kinds[1:], start=1):
            if kind == "duplicate":
                c[i] = c[i - 1]
    targets = make_targets(boxes, classes, size)
    priors = PointGenerator(strides=strides, offset=offset)(grid_sizes(*size, strides), torch.device("cpu"))
    return random_predictions(generator, targets, *size, num_classes, priors), targets


def assign(predictions, targets, **options):
    return OTA(**options)(predictions.detach(), targets, score=Score(), progress=0.0)


def expected(predictions, targets, **options):
    """[N, R] matches within the image, and per image the plan and k, in double precision."""
    priors = predictions.priors
    place = priors.points.double(), priors.strides.double()
    matched, plans, ks = [], [], []
    for i in range(targets.num_images):
        here = targets.image == i
        boxes = predictions.boxes()[i].double()
        gts, classes = targets.boxes[here].double(), targets.classes[here]
        logits = flat(predictions, "logits")[i].double()
        m, plan, k = reference.assign(logits, boxes, *place, gts, classes, **options)
        matched.append(m)
        plans.append(plan)
        ks.append(k)
    return torch.stack(matched), plans, ks


def check(predictions, targets, **options):
    """Equal, except where the shares of two rows differ by less than single precision can tell."""
    matched, plans, ks = expected(predictions, targets, **options)
    actual = matched_in_image(assign(predictions, targets, **options), targets, len(predictions.priors))
    _, transport = OTA(**options).transport(predictions.detach(), targets, Score())
    assert transport.supply[: len(targets)].tolist() == torch.cat(ks).tolist()
    for i, plan in enumerate(plans):
        first, second = plan.topk(min(2, len(plan)), 0).values[[0, -1]]
        clear = (first - second > 1e-3) if len(plan) > 1 else torch.ones_like(first, dtype=torch.bool)
        # Rows that are equal are equal exactly, and the first one wins.
        clear |= (plan == plan.amax(0)).sum(0) > 1
        assert torch.equal(actual[i][clear], matched[i][clear])
    return actual


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.lists(st.sampled_from(KINDS), max_size=8), min_size=1, max_size=3),
    st.sampled_from([(64, 64), (96, 136)]),
    st.sampled_from([1, 3]),
)
def test_same_as_the_dense_version(seed, kinds, size, num_classes):
    check(*make_scene(seed, kinds, size, num_classes))


@pytest.mark.parametrize(
    "options",
    [
        {"center_radius": 1.5},
        {"topk": 5},
        {"reg_weight": 3.0},
        {"eps": 0.5},
        {"iterations": 1},
        {"iterations": 10},
    ],
)
def test_every_option_is_used(options):
    scene = make_scene(11, [["object"] * 5 + ["tiny"], ["huge", "object", "object"]])
    check(*scene, **options)
    _, transport = OTA(**options).transport(scene[0].detach(), scene[1], Score())
    matcher, plain = OTA(**options), OTA()
    before = plain.transport(scene[0].detach(), scene[1], Score())[1].shares(plain.eps, plain.iterations)[0]
    after = transport.shares(matcher.eps, matcher.iterations)[0]
    assert before.shape != after.shape or not torch.allclose(before, after, atol=1e-3)


def test_plan_of_a_scene_in_which_all_have_candidates():
    predictions, targets = make_scene(1, [["object"] * 6, ["object", "huge"]])
    _, plans, _ = expected(predictions, targets)
    pairs, transport = OTA().transport(predictions.detach(), targets, Score())
    shares, alone = transport.shares(0.1, 50)
    for row in range(len(targets)):
        mine = transport.row[: len(pairs)] == row
        image, first = int(targets.image[row]), sum(targets.counts[: targets.image[row]])
        plan = plans[image][row - first]
        torch.testing.assert_close(shares[: len(pairs)][mine].double(), plan[pairs.prior[mine]], rtol=0, atol=1e-4)
    for image, plan in enumerate(plans):
        columns = torch.ones(len(predictions.priors), dtype=torch.bool)
        columns[pairs.prior[pairs.image == image]] = False
        torch.testing.assert_close(plan[-1][columns], alone[len(targets) + image].double().expand(columns.sum()))


def test_rows_get_what_they_supply_and_columns_one():
    torch.manual_seed(0)
    row, column = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2]), torch.tensor([0, 1, 2, 1, 3, 0, 1, 2, 3])
    supply, free = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 0, 3])
    transport = Transport(row, column, torch.rand(9), supply, free, 4)
    shares, alone = transport.shares(0.1, 2000)
    # Shares are of the row's largest entry; a row's factor follows from its supply.
    total = torch.zeros(3).index_add(0, row, shares) + free * alone
    plan = shares * (supply / total)[row]
    torch.testing.assert_close(torch.zeros(4).index_add(0, column, plan), torch.ones(4), rtol=0, atol=1e-3)
    assert shares.max() == alone.max().maximum(shares.max()) == 1


@pytest.mark.parametrize("lowest", [0.0, 905.0])
def test_costs_that_differ_by_more_than_a_float_can_hold(lowest):
    """Exponentials of these costs vanish, also in double precision."""
    row, column = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    cost, supply = torch.tensor([900.0, 901.0, lowest, lowest]), torch.tensor([1.0, 1.0])
    shares, _ = Transport(row, column, cost, supply, torch.zeros(2), 2).shares(0.1, 50)
    assert shares.isfinite().all() and shares[0] == 1 and shares[3] == 1


def test_equal_ground_truths_go_to_the_first():
    predictions, targets = make_scene(2, [["object", "duplicate", "duplicate"]])
    matched = check(predictions, targets)
    assert set(matched.unique().tolist()) == {-1, 0}


def test_a_ground_truth_between_the_points_takes_part_with_all_locations():
    """It ends with a location whose predicted box overlaps it."""
    predictions, _ = make_scene(3, [["object"]])
    targets = make_targets([[[17.0, 17.0, 23.0, 23.0], [40.0, 40.0, 90.0, 90.0]]], [[0, 1]], size=(96, 136))
    _, inside = reference.candidates(predictions.priors.points, predictions.priors.strides, targets.boxes).any(1)
    assert inside
    for level, boxes in enumerate(predictions.maps["boxes"]):
        boxes[...] = 0
        if level == 0:
            boxes[0, :, 2, 2] = 7.0  # around (16, 16)
    matched = check(predictions, targets)
    assert matched[0, 2 * 17 + 2] == 0


def test_in_an_image_without_a_free_location_the_background_supplies_next_to_nothing():
    predictions, targets = make_scene(4, [["object"] * 12], (64, 64), strides=(64,), offset=0.5)
    assert len(predictions.priors) == 1
    matched = assign(predictions, targets).pairs
    assert len(matched) <= 1
    share, _ = OTA().transport(predictions.detach(), targets, Score())[1].shares(0.1, 50)
    assert share.isfinite().all()


@pytest.mark.parametrize("kinds", [[[]], [[], []], [[], ["object", "tiny"], []]])
def test_images_without_ground_truth(kinds):
    predictions, targets = make_scene(5, kinds)
    check(predictions, targets)


@pytest.mark.parametrize("distance, is_candidate", [(0.005, False), (0.02, True), (-1.0, False)])
def test_a_candidate_is_more_than_a_hundredth_of_a_pixel_inside(distance, is_candidate):
    predictions, _ = make_scene(6, [["object"]], num_classes=1)
    targets = make_targets([[[16 - distance, 4.0, 36.0, 28.0]]])
    pairs, _ = OTA().transport(predictions.detach(), targets, Score())
    at_16_16 = 2 * predictions.priors.grid_sizes[0][1] + 2
    assert (at_16_16 in pairs.prior.tolist()) == is_candidate


def make_criterion():
    (criterion,) = instantiate(model_zoo.get_config("OTA/ota_r50_fpn_1x_coco").model.criteria)
    return criterion


@pytest.mark.parametrize("name", ["logits", "boxes"])
def test_nan_is_not_hidden(name):
    predictions, targets = make_scene(7, [["object", "duplicate", "object"]])
    predictions.maps[name][0][:] = torch.nan
    losses = reduce_losses(make_criterion()(predictions, targets, progress=0.0))
    assert losses["loss_cls" if name == "logits" else "loss_box_reg"].isnan()


def test_batch_without_ground_truth_is_divided_by_one():
    predictions, targets = make_scene(8, [[], []])
    leaves = {name: [x.requires_grad_() for x in levels] for name, levels in predictions.maps.items()}
    terms = make_criterion()(predictions, targets, progress=0.0)
    losses = reduce_losses(terms)
    assert losses["loss_cls"] == terms["loss_cls"].numerator > 0
    assert losses["loss_box_reg"] == losses["loss_iou"] == 0
    sum(losses.values()).backward()
    assert all(x.grad is not None for name in ("logits", "boxes", "quality") for x in leaves[name])


def test_ignored_ground_truths_take_no_part():
    predictions, targets = make_scene(9, [["object", "object"], ["object"]])
    ignored = replace(targets, ignored=torch.tensor([True, False, False]))
    decision = make_criterion().assign(predictions, ignored, progress=0.0)
    alone = make_criterion().assign(predictions, ignored.without_ignored(), progress=0.0)
    assert torch.equal(decision.assignment.pairs.prior, alone.assignment.pairs.prior)
    assert decision.assignment.dropped is None
