"""DW's weights and losses against the dense version in la_det/references/dw.py, and at the edges."""

import pytest
import torch
from detectron2.config import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st

from la_det import model_zoo
from la_det.matchers import DW
from la_det.modeling.criteria import Decision, DWNegativeLoss, reduce_losses
from la_det.references import dw as reference
from la_det.steps.candidates import inside_box
from la_det.steps.select import last_of_class
from la_det.structures import Assignment, DensePredictions, Negatives, Pairs, PointGenerator
from tests.matchers.gated_scenes import SCORE, make_predictions, make_targets, scenes


def flat(predictions, name):
    """[N, R, C]."""
    return torch.cat([x.flatten(2) for x in predictions.maps[name]], 2).transpose(1, 2)


def dense_weights(predictions, targets, assignment):
    """[R, G] positive weights (over the batch) and [N, R, K] negative ones."""
    num_priors = len(predictions.priors)
    w_pos = torch.zeros(num_priors, len(targets))
    w_pos[assignment.pairs.prior, assignment.pairs.gt] = assignment.weight
    w_neg = torch.ones(targets.num_images, num_priors, predictions.num_classes)
    n = assignment.negatives
    entries = torch.stack([n.image, n.prior, n.cls])
    assert len(entries.unique(dim=1).T) == len(n.weight), "an entry is listed twice"
    w_neg[n.image, n.prior, n.cls] = n.weight
    return w_pos, w_neg


def reference_inputs(predictions, i):
    priors = predictions.priors
    boxes = predictions.codec.decode(flat(predictions, "boxes")[i], priors, torch.arange(len(priors)))
    return flat(predictions, "logits")[i], flat(predictions, "quality")[i, :, 0], boxes


def make_criterion(soft_prior=True):
    config = model_zoo.get_config("DW/dw_r50_fpn_1x_coco").model.criteria[0]
    config.matcher.soft_prior = soft_prior
    return instantiate(config)


@settings(max_examples=25, deadline=None)
@given(scenes(), st.booleans())
def test_same_weights_losses_and_gradients_as_the_dense_version(scene, soft_prior):
    targets, predictions = scene
    criterion = make_criterion(soft_prior)
    assignment = criterion.assign(predictions, targets, progress=0.0).assignment
    w_pos, w_neg = dense_weights(predictions, targets, assignment)
    sums, lowered = torch.zeros(3), 0.0
    for i in range(targets.num_images):
        cls, obj, boxes = reference_inputs(predictions, i)
        here = targets.image == i
        gt_boxes, gt_classes = targets.boxes[here], targets.classes[here]
        points, strides = predictions.priors.points, predictions.priors.strides
        with torch.no_grad():
            expected = reference.weights(cls, obj, boxes, points, strides, gt_boxes, gt_classes, soft_prior)
        torch.testing.assert_close(w_pos[:, here], expected[0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(w_neg[i], expected[1], rtol=1e-4, atol=1e-4)
        sums = sums + torch.stack(reference.losses(cls, obj, boxes, gt_boxes, gt_classes, *expected))
        lowered += (1 - expected[1]).sum()
    count, lowered = max(len(targets), 1), max(lowered, 1)
    expected_losses = sums / torch.tensor([count, count, lowered])

    losses = reduce_losses(criterion(predictions, targets, progress=0.0))
    actual_losses = torch.stack([losses[name] for name in ("loss_cls_pos", "loss_loc", "loss_cls_neg")])
    torch.testing.assert_close(actual_losses, expected_losses, rtol=1e-4, atol=1e-6)
    leaves = sum(predictions.maps.values(), [])
    expected_grads = torch.autograd.grad(expected_losses.sum(), leaves, allow_unused=True)
    grads = torch.autograd.grad(actual_losses.sum(), leaves)
    scale = max(float(g.abs().max()) for g in grads)
    for grad, expected_grad, leaf in zip(grads, expected_grads, leaves, strict=True):
        expected_grad = torch.zeros_like(leaf) if expected_grad is None else expected_grad
        torch.testing.assert_close(grad, expected_grad, rtol=1e-3, atol=1e-5 * scale)


def test_last_ground_truth_of_a_class_decides():
    """A point in two boxes of one class takes the weight of the later one, in both orders."""
    size = (64, 64)
    first, second = [0.0, 0.0, 32.0, 32.0], [0.0, 0.0, 64.0, 64.0]
    for order in ([first, second], [second, first]):
        targets = make_targets([order], [[1, 1]], size)
        predictions = make_predictions(1, size, targets, torch.Generator().manual_seed(3))
        assignment = DW()(predictions.detach(), targets, score=SCORE, progress=0.0)
        _, w_neg = dense_weights(predictions, targets, assignment)
        alone = make_targets([order[1:]], [[1]], size)
        _, w_neg_alone = dense_weights(predictions, alone, DW()(predictions.detach(), alone, score=SCORE, progress=0.0))
        inside = inside_box(predictions.priors, alone).prior
        assert (w_neg_alone < 1).any()
        assert torch.equal(w_neg[0, inside], w_neg_alone[0, inside])


def test_other_classes_do_not_interact():
    size = (64, 64)
    box = [0.0, 0.0, 64.0, 64.0]
    both = make_targets([[box, box]], [[0, 2]], size)
    pairs = inside_box(PointGenerator()([(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)], torch.device("cpu")), both)
    assert last_of_class(pairs, both, 86, 3).all()
    same = make_targets([[box, box]], [[2, 2]], size)
    assert torch.equal(last_of_class(pairs, same, 86, 3), pairs.gt == 1)


def test_a_ground_truth_with_one_location_keeps_its_negative_weight():
    """The weight is 0 / 0 there, which the official epsilon turns into 1, even for a perfect box."""
    size = (64, 64)
    targets = make_targets([[[2.0, 2.0, 6.0, 6.0]]], [[0]], size)
    predictions = make_predictions(1, size, targets, torch.Generator().manual_seed(0))
    with torch.no_grad():
        predictions.maps["boxes"][0][0, :, 0, 0] = 2.0
    assignment = DW()(predictions.detach(), targets, score=SCORE, progress=0.0)
    assert len(assignment.pairs) == 1
    assert assignment.negatives.weight.tolist() == [1.0]


def test_negative_loss_is_divided_by_at_least_one():
    size = (64, 64)
    targets = make_targets([[[2.0, 2.0, 30.0, 30.0]]], [[0]], size)
    predictions = make_predictions(1, size, targets, torch.Generator().manual_seed(0))
    one = torch.zeros(1, dtype=torch.int64)
    negatives = Negatives(one, one, one, torch.tensor([0.75]))
    none = Pairs(one[:0], one[:0], one[:0])
    decision = Decision(predictions, targets, Assignment(none, weight=torch.zeros(0), negatives=negatives), SCORE)
    term = DWNegativeLoss()(decision)
    assert term.normaliser == 0.25
    assert reduce_losses({"loss": term})["loss"] == term.numerator


@pytest.mark.parametrize("boxes", [[], [[10.0, 10.0, 10.0, 30.0]], [[9.0, 9.0, 11.0, 11.0]]])
def test_without_any_location_every_map_has_a_gradient(boxes):
    """No ground truth, one without area, one between the points: only the background is trained."""
    size = (64, 64)
    targets = make_targets([boxes, []], [[0] * len(boxes), []], size)
    predictions = make_predictions(2, size, targets, torch.Generator().manual_seed(0))
    terms = make_criterion()(predictions, targets, progress=0.0)
    losses = reduce_losses(terms)
    assert losses["loss_cls_pos"] == 0 and losses["loss_loc"] == 0 and losses["loss_cls_neg"] > 0
    assert terms["loss_loc"].normaliser == len(boxes) and terms["loss_cls_neg"].normaliser == 0
    sum(losses.values()).backward()
    assert all(x.grad is not None and not x.grad.any() for x in predictions.maps["boxes"])
    assert all(x.grad.any() for x in predictions.maps["logits"] + predictions.maps["quality"])


def test_a_diverged_box_branch_shows_in_the_loss():
    size = (64, 64)
    targets = make_targets([[[0.0, 0.0, 60.0, 60.0]]], [[0]], size)
    predictions = make_predictions(1, size, targets, torch.Generator().manual_seed(0))
    with torch.no_grad():
        predictions.maps["boxes"][0][0, :, 4, 4] = torch.nan
    losses = reduce_losses(make_criterion()(predictions, targets, progress=0.0))
    assert losses["loss_loc"].isnan()


def test_weights_sum_to_one_or_more_and_do_not_depend_on_the_rest_of_the_batch():
    size = (96, 128)
    boxes = [[[4.0, 4.0, 90.0, 90.0], [30.0, 20.0, 120.0, 90.0]], [[50.0, 10.0, 100.0, 60.0]]]
    targets = make_targets(boxes, [[0, 1], [2]], size)
    predictions = make_predictions(2, size, targets, torch.Generator().manual_seed(1))
    w_pos, _ = dense_weights(predictions, targets, DW()(predictions.detach(), targets, score=SCORE, progress=0.0))
    assert (w_pos.sum(0) >= 1 - 1e-5).all()
    alone = make_targets(boxes[1:], [[2]], size)
    maps = {name: [x[1:].detach() for x in levels] for name, levels in predictions.maps.items()}
    predictions_alone = DensePredictions(predictions.priors, predictions.codec, maps)
    w_alone, _ = dense_weights(predictions_alone, alone, DW()(predictions_alone, alone, score=SCORE, progress=0.0))
    torch.testing.assert_close(w_pos[:, 2:], w_alone)
