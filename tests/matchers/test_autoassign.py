"""AutoAssign's weights and losses against the dense version in la_det/references/autoassign.py, and at the edges."""

import pytest
import torch
from detectron2.config import instantiate
from hypothesis import given, settings

from la_det import model_zoo
from la_det.matchers import AutoAssign
from la_det.matchers.autoassign import MIN_SIGMA, SoftAssignment
from la_det.modeling.criteria import AutoAssignPositiveLoss, reduce_losses
from la_det.modeling.criteria.decision import Decision
from la_det.references import autoassign as reference
from la_det.references.image import images
from la_det.structures import DensePredictions, Pairs
from tests.matchers.gated_scenes import NUM_CLASSES, SCORE, make_predictions, make_targets, scenes

SIZE = (64, 64)


def make_criterion(seed: int = 0):
    """Of the config, with a centre prior that is not the initial one."""
    config = model_zoo.get_config("AutoAssign/autoassign_r50_fpn_1x_coco").model
    config.num_classes = NUM_CLASSES
    (criterion,) = instantiate(config.criteria)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        criterion.matcher.mu += 0.5 * torch.randn(NUM_CLASSES, 2, generator=generator)
        criterion.matcher.sigma += torch.rand(NUM_CLASSES, 2, generator=generator)
    return criterion


def leaves_of(criterion, predictions) -> list[torch.Tensor]:
    return [*sum(predictions.maps.values(), []), criterion.matcher.mu, criterion.matcher.sigma]


def dense_weights(assignment, targets, predictions):
    """[R, G] w and g (over the batch) and [N, R, K] v."""
    pairs, n = assignment.pairs, assignment.negatives
    w, g = (torch.zeros(len(predictions.priors), len(targets)) for _ in range(2))
    w[pairs.prior, pairs.gt], g[pairs.prior, pairs.gt] = assignment.weight.detach(), assignment.closeness.detach()
    v = torch.ones(targets.num_images, len(predictions.priors), predictions.num_classes)
    assert len(torch.stack([n.image, n.prior, n.cls]).unique(dim=1).T) == len(n.weight), "an entry is listed twice"
    v[n.image, n.prior, n.cls] = n.weight
    return w, g, v


def test_costs_of_tiny_bags():
    """As PyTorch's cross entropy: -ln B is at most 100, and its derivative at least -1e12."""
    bag = torch.tensor([0.0, 1e-45, 1e-20, 1e-12, 0.2, 0.9], requires_grad=True)
    every = torch.arange(len(bag))
    pairs = Pairs(torch.zeros_like(every), every, every)
    assignment = SoftAssignment(pairs, weight=torch.ones_like(bag), confidence=bag)
    targets = make_targets([[[0.0, 0.0, 8.0, 8.0]] * len(bag)], [[0] * len(bag)], SIZE)
    decision = Decision(make_predictions(1, SIZE, targets, torch.Generator()), targets, assignment, SCORE)
    loss = AutoAssignPositiveLoss()(decision).numerator
    expected = torch.nn.functional.binary_cross_entropy(bag, torch.ones_like(bag), reduction="sum")
    torch.testing.assert_close(loss, expected)
    (gradient,), (expected,) = (torch.autograd.grad(x, bag) for x in (loss, expected))
    torch.testing.assert_close(gradient, expected)


@settings(max_examples=25, deadline=None)
@given(scenes())
def test_same_weights_losses_and_gradients_as_the_dense_version(scene):
    targets, predictions = scene
    criterion = make_criterion()
    w, g, v = dense_weights(criterion.assign(predictions, targets, progress=0.0).assignment, targets, predictions)
    pos, neg, center, priors = torch.zeros(4).unbind()
    for i, image in enumerate(images(SCORE, predictions, targets)):
        expected = reference.rule(criterion.matcher, image)
        here = targets.image == i
        for ours, theirs in ((w[:, here], expected[0]), (v[i], expected[1]), (g[:, here], expected[2])):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        parts = reference.losses(image.p, *expected)
        pos, neg, center = pos + parts[0], neg + parts[1], center + parts[2]
        priors = priors + expected[2].sum().detach()
    expected_losses = torch.stack(
        [
            0.25 * pos / max(len(targets), 1),
            0.75 * neg / priors.clamp(min=1),
            0.75 * center / targets.num_images,
        ]
    )

    losses = reduce_losses(criterion(predictions, targets, progress=0.0))
    actual_losses = torch.stack([losses[name] for name in ("loss_pos", "loss_neg", "loss_center")])
    torch.testing.assert_close(actual_losses, expected_losses, rtol=1e-4, atol=1e-6)
    leaves = leaves_of(criterion, predictions)
    expected_grads = torch.autograd.grad(expected_losses.sum(), leaves, allow_unused=True)
    grads = torch.autograd.grad(actual_losses.sum(), leaves)
    scale = max(float(grad.abs().max()) for grad in grads)
    for grad, expected_grad, leaf in zip(grads, expected_grads, leaves, strict=True):
        expected_grad = torch.zeros_like(leaf) if expected_grad is None else expected_grad
        torch.testing.assert_close(grad, expected_grad, rtol=1e-3, atol=1e-5 * scale)


def test_the_prior_is_learnt_and_saved_with_the_criterion():
    criterion = make_criterion()
    assert set(criterion.state_dict()) == {"matcher.mu", "matcher.sigma"}
    targets = make_targets([[[4.0, 4.0, 60.0, 60.0]]], [[1]], SIZE)
    predictions = make_predictions(1, SIZE, targets, torch.Generator().manual_seed(0))
    terms = criterion(predictions, targets, progress=0.0)
    for name, term in terms.items():
        trains = name != "loss_neg"
        assert term.numerator.requires_grad
        prior = leaves_of(criterion, predictions)[-2:]
        grads = torch.autograd.grad(term.numerator, prior, retain_graph=True, allow_unused=not trains)
        assert all((grad is not None and bool(grad[1].any())) == trains for grad in grads), name
        assert all(grad is None or not grad[[0, 2]].any() for grad in grads), "of other classes"


def test_last_ground_truth_of_a_class_decides():
    """A point in two boxes of one class takes the weight of the later one, in both orders."""
    first, second = [0.0, 0.0, 32.0, 32.0], [0.0, 0.0, 64.0, 64.0]
    weights = {}
    for order in ([first, second], [second, first]):
        targets = make_targets([order], [[1, 1]], SIZE)
        predictions = make_predictions(1, SIZE, make_targets([[second]], [[1]], SIZE), torch.Generator().manual_seed(3))
        assignment = AutoAssign(num_classes=NUM_CLASSES)(predictions, targets, score=SCORE, progress=0.0)
        weights[order[0] is first] = dense_weights(assignment, targets, predictions)[2][0, :, 1]
    inside = (predictions.priors.points < 32).all(1)
    assert not torch.equal(weights[True][inside], weights[False][inside])
    assert torch.equal(weights[True][~inside], weights[False][~inside])


def test_boxes_of_other_classes_and_elsewhere_lower_the_weight():
    """The IoU is the largest with any ground truth of the image, also with one that does not contain the location."""
    targets = make_targets([[[0.0, 0.0, 32.0, 64.0], [40.0, 0.0, 64.0, 64.0]]], [[0, 1]], SIZE)
    predictions = make_predictions(1, SIZE, targets, torch.Generator().manual_seed(0))
    with torch.no_grad():  # the location at (4, 4), which lies in the first, predicts the second
        predictions.maps["boxes"][0][0, :, 0, 0] = torch.tensor([-36.0, 4.0, 60.0, 60.0])
    assignment = AutoAssign(num_classes=NUM_CLASSES)(predictions, targets, score=SCORE, progress=0.0)
    _, _, v = dense_weights(assignment, targets, predictions)
    assert v[0, 0, 0] == 0 and (v[0, :, 0] > 0.5).any()


def test_a_ground_truth_with_one_location_has_no_negative_there():
    targets = make_targets([[[2.0, 2.0, 6.0, 6.0]]], [[0]], SIZE)
    predictions = make_predictions(1, SIZE, targets, torch.Generator().manual_seed(0))
    assignment = AutoAssign(num_classes=NUM_CLASSES)(predictions, targets, score=SCORE, progress=0.0)
    assert assignment.negatives.weight.tolist() == [0.0]
    assert assignment.weight.tolist() == [1.0]


@pytest.mark.parametrize("boxes", [[], [[10.0, 10.0, 10.0, 30.0]], [[9.0, 9.0, 11.0, 11.0]]])
def test_without_any_location_everything_has_a_gradient(boxes):
    """No ground truth, one without area, one between the points: only the background is trained."""
    criterion, targets = make_criterion(), make_targets([boxes, []], [[0] * len(boxes), []], SIZE)
    predictions = make_predictions(2, SIZE, targets, torch.Generator().manual_seed(0))
    terms = criterion(predictions, targets, progress=0.0)
    losses = reduce_losses(terms)
    assert losses["loss_pos"] == 25 * len(boxes) and losses["loss_center"] == 0 and losses["loss_neg"] > 0
    assert terms["loss_pos"].normaliser == len(boxes) and terms["loss_neg"].normaliser == 0
    sum(losses.values()).backward()
    *maps, mu, sigma = leaves_of(criterion, predictions)
    for x in (mu, sigma, *predictions.maps["boxes"]):
        assert x.grad is not None and not x.grad.any()
    assert all(x.grad.any() for x in predictions.maps["logits"] + predictions.maps["quality"])


def test_an_image_without_ground_truths_counts_in_the_mean_of_the_centre_loss():
    criterion, boxes = make_criterion(), [[4.0, 4.0, 60.0, 60.0]]
    losses = []
    for images_boxes in ([boxes], [boxes, []]):
        targets = make_targets(images_boxes, [[0] * len(b) for b in images_boxes], SIZE)
        predictions = make_predictions(len(images_boxes), SIZE, targets, torch.Generator().manual_seed(0))
        losses.append(reduce_losses(criterion(predictions, targets, progress=0.0))["loss_center"])
    torch.testing.assert_close(losses[0], 2 * losses[1])


def test_normalisers_of_the_losses():
    """The sum of the prior counts as 1 at least, and the centre loss is this process's own."""
    criterion, targets = make_criterion(), make_targets([[[2.0, 2.0, 6.0, 6.0]]], [[0]], SIZE)
    predictions = make_predictions(1, SIZE, targets, torch.Generator().manual_seed(0))
    terms = criterion(predictions, targets, progress=0.0)
    assert 0 < terms["loss_neg"].normaliser < 1
    torch.testing.assert_close(reduce_losses(terms)["loss_neg"], 0.75 * terms["loss_neg"].numerator)
    assert {name: term.scope for name, term in terms.items()} == {
        "loss_pos": "world",
        "loss_neg": "world",
        "loss_center": "local",
    }


def test_a_vanished_deviation_gives_no_nan():
    criterion, targets = make_criterion(), make_targets([[[0.0, 0.0, 64.0, 64.0]]], [[0]], SIZE)
    predictions = make_predictions(1, SIZE, targets, torch.Generator().manual_seed(0))
    with torch.no_grad():
        criterion.matcher.sigma[0], criterion.matcher.mu[0] = 0.0, 0.5  # of the 8 x 8 points, that at (36, 36)
    assignment = criterion.assign(predictions, targets, progress=0.0).assignment
    assert assignment.closeness.isfinite().all() and assignment.closeness.max() == 1
    sum(reduce_losses(criterion(predictions, targets, progress=0.0)).values()).backward()
    assert criterion.matcher.sigma.grad.isfinite().all()
    assert MIN_SIGMA > 0


def test_a_diverged_box_branch_shows_in_the_loss():
    targets = make_targets([[[0.0, 0.0, 60.0, 60.0]]], [[0]], SIZE)
    predictions = make_predictions(1, SIZE, targets, torch.Generator().manual_seed(0))
    with torch.no_grad():
        predictions.maps["boxes"][0][0, :, 4, 4] = torch.nan
    losses = reduce_losses(make_criterion()(predictions, targets, progress=0.0))
    assert losses["loss_pos"].isnan()


def test_weights_sum_to_one_and_do_not_depend_on_the_rest_of_the_batch():
    size = (96, 128)
    boxes = [[[4.0, 4.0, 90.0, 90.0], [30.0, 20.0, 120.0, 90.0]], [[50.0, 10.0, 100.0, 60.0]]]
    targets = make_targets(boxes, [[0, 1], [2]], size)
    predictions = make_predictions(2, size, targets, torch.Generator().manual_seed(1))
    criterion = make_criterion()
    w, _, v = dense_weights(criterion.assign(predictions, targets, progress=0.0).assignment, targets, predictions)
    torch.testing.assert_close(w.sum(0), torch.ones(3))
    alone = make_targets(boxes[1:], [[2]], size)
    maps = {name: [x[1:].detach() for x in levels] for name, levels in predictions.maps.items()}
    of_image = DensePredictions(predictions.priors, predictions.codec, maps)
    w_alone, _, v_alone = dense_weights(criterion.assign(of_image, alone, progress=0.0).assignment, alone, of_image)
    torch.testing.assert_close(w[:, 2:], w_alone)
    torch.testing.assert_close(v[1:], v_alone)


def test_dropped_ground_truths_take_their_rows_along():
    targets = make_targets([[[4.0, 4.0, 60.0, 60.0], [0.0, 0.0, 30.0, 30.0]]], [[0, 1]], SIZE)
    predictions = make_predictions(1, SIZE, targets, torch.Generator().manual_seed(0))
    assignment = AutoAssign(num_classes=NUM_CLASSES)(predictions, targets, score=SCORE, progress=0.0)
    kept = assignment.drop(assignment.pairs.gt == 1, counted=False)
    first = assignment.pairs.gt == 0
    for name in ("weight", "closeness", "confidence"):
        assert torch.equal(getattr(kept, name), getattr(assignment, name)[first])
