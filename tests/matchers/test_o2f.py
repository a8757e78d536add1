"""o2f's assignment and losses against the dense version in la_det/references/o2f.py, and at the edges."""

from dataclasses import replace

import pytest
import torch
from detectron2.config import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st

from la_det import model_zoo
from la_det.errors import UserError
from la_det.matchers import O2F
from la_det.modeling.criteria import reduce_losses
from la_det.references import o2f as reference
from la_det.references.scene import dense_matches
from la_det.structures import DensePredictions
from tests.matchers.gated_scenes import SCORE, make_predictions, make_targets, scenes

SOFT = [
    {"soft_weight": 0.4, "soft_targets": (0.6, 0.2), "num_epochs": 12},  # the defaults
    {"soft_weight": 0.7, "soft_targets": (0.9, 0.5), "num_epochs": 6},
]


def make_criterion(**options):
    config = model_zoo.get_config("O2F/o2f_r50_fpn_1x_coco").model.criteria[0]
    config.matcher.update(options)
    return instantiate(config)


def dense(predictions, targets, assignment):
    """Matched ground truth over the batch, t and w, all [N, R]."""
    pairs = assignment.pairs
    matched = dense_matches(assignment, targets.num_images, len(predictions.priors))
    t, w = torch.zeros(matched.shape), torch.zeros(matched.shape)
    t[pairs.image, pairs.prior], w[pairs.image, pairs.prior] = assignment.target, assignment.weight
    return matched, t, w


@settings(max_examples=30, deadline=None)
@given(scenes(), st.sampled_from([1, 2, 4, 7]), st.integers(0, 11), st.sampled_from(SOFT))
def test_same_assignment_losses_and_gradients_as_the_dense_version(scene, topk, epoch, soft):
    targets, predictions = scene
    weight, (first, last), num_epochs = soft.values()
    largest = first + (last - first) * (epoch * num_epochs // 12) / (num_epochs - 1)
    criterion = make_criterion(topk=topk, **soft)
    matched, t, w = dense(predictions, targets, criterion.assign(predictions, targets, epoch / 12).assignment)
    flat = {name: predictions.joined(name).transpose(1, 2) for name in predictions.maps}
    priors = predictions.priors
    sums = torch.zeros(4)
    for i in range(targets.num_images):
        cls, ctr, here = flat["logits"][i], flat["quality"][i, :, 0], targets.image == i
        boxes = predictions.codec.decode(flat["boxes"][i], priors, torch.arange(len(priors)))
        gt = (targets.boxes[here], targets.classes[here])
        with torch.no_grad():
            region = (priors.points, priors.strides, *gt, targets.centers[here])
            expected = reference.assign(cls, ctr, boxes, *region, largest, topk, soft_weight=weight)
        first = int(here.nonzero()[0]) if here.any() else 0
        assert torch.equal(matched[i], torch.where(expected[0] >= 0, expected[0] + first, -1))
        torch.testing.assert_close(t[i], expected[1], rtol=1e-5, atol=0)
        assert torch.equal(w[i], expected[2])
        sums = sums + torch.stack(
            [torch.as_tensor(x) for x in reference.losses(cls, ctr, boxes, priors.points, *gt, *expected)]
        )
    expected_losses = torch.stack([sums[0] / sums[2].clamp(min=1), 2 * sums[1] / sums[3].clamp(min=1e-6)])
    losses = reduce_losses(criterion(predictions, targets, epoch / 12))
    actual_losses = torch.stack([losses["loss_cls"], losses["loss_bbox"]])
    torch.testing.assert_close(actual_losses, expected_losses, rtol=1e-4, atol=1e-6)
    leaves = sum(predictions.maps.values(), [])
    expected_grads = torch.autograd.grad(expected_losses.sum(), leaves)
    for grad, expected_grad in zip(torch.autograd.grad(actual_losses.sum(), leaves), expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-3, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(scenes(), st.integers(1, 7))
def test_every_ground_truth_has_one_certain_location_and_a_few_soft_ones(scene, topk):
    targets, predictions = scene
    assignment = O2F(topk=topk)(predictions.detach(), targets, score=SCORE, progress=0.0)
    pairs, certain = assignment.pairs, assignment.weight == 1
    locations = pairs.image * len(predictions.priors) + pairs.prior
    assert len(locations.unique()) == len(locations)
    assert (targets.image[pairs.gt] == pairs.image).all()
    counts = torch.bincount(pairs.gt, minlength=len(targets))
    assert (counts <= topk).all()
    assert torch.equal(torch.bincount(pairs.gt[certain], minlength=len(targets)), (counts > 0).long())
    assert (assignment.target[certain] == 1).all()
    assert ((assignment.target[~certain] > 0) & (assignment.target[~certain] < 0.6 + 1e-6)).all()


@pytest.mark.parametrize(
    ("max_iter", "num_epochs"), [(87960, 12), (90000, 12), (263880, 36), (270000, 36), (46900, 50), (1000, 12), (7, 3)]
)
def test_epoch_of_every_iteration(max_iter, num_epochs):
    """Progress is what the detector computes; the epoch is exactly min(E - 1, floor(iter E / max_iter))."""
    matcher = O2F(num_epochs=num_epochs)
    expected = [0.6 + (0.2 - 0.6) * e / (num_epochs - 1) for e in range(num_epochs)]
    for iteration in range(max_iter + 1):
        epoch = min(num_epochs - 1, iteration * num_epochs // max_iter)
        actual = matcher.largest_soft_target(min(iteration / max_iter, 1.0))
        assert abs(actual - expected[epoch]) < 1e-12, f"iteration {iteration}"


def test_soft_targets_of_one_epoch():
    assert O2F(num_epochs=1).largest_soft_target(0.7) == 0.6


def mask_of(box, size):
    mask = torch.zeros(size, dtype=torch.bool)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = True
    return mask


def test_regions_surround_mask_centroids():
    """The mask fills the right end of a wide box: all positives of the finest level lie there."""
    size = (64, 128)
    targets = make_targets([[[0.0, 0.0, 128.0, 64.0]]], [[0]], size, [mask_of((96, 16, 128, 48), size).unsqueeze(0)])
    predictions = make_predictions(1, size, targets, torch.Generator().manual_seed(0)).detach()
    pairs, inside = O2F(mask_centers=True).region(predictions.priors, targets)
    pairs = pairs[inside]
    points = predictions.priors.points[pairs.prior[predictions.priors.levels[pairs.prior] == 0]]
    # The centroid of pixel indices is (111.5, 31.5); 1.5 strides are 12 pixels.
    assert points.unique(dim=0).tolist() == [[x, y] for x in (100.0, 108.0, 116.0) for y in (20.0, 28.0, 36.0)]
    pairs, inside = O2F().region(predictions.priors, targets)
    assert predictions.priors.points[pairs.prior[inside]][:, 0].min() < 96


def test_missing_masks_are_named():
    targets = make_targets([[[0.0, 0.0, 64.0, 64.0]]], [[0]], (64, 64))
    predictions = make_predictions(1, (64, 64), targets, torch.Generator().manual_seed(0)).detach()
    with pytest.raises(UserError, match="use_instance_mask=True"):
        O2F(mask_centers=True)(predictions, targets, score=SCORE, progress=0.0)


def test_an_empty_mask_has_no_location():
    size = (64, 64)
    masks = torch.stack([torch.zeros(size, dtype=torch.bool), mask_of((0, 0, 64, 64), size)])
    targets = make_targets([[[0.0, 0.0, 64.0, 64.0]] * 2], [[0, 1]], size, [masks])
    predictions = make_predictions(1, size, targets, torch.Generator().manual_seed(0)).detach()
    assignment = O2F(mask_centers=True)(predictions, targets, score=SCORE, progress=0.0)
    assert set(assignment.pairs.gt.tolist()) == {1}


def test_duplicates_of_one_class_go_to_the_first():
    size = (64, 64)
    targets = make_targets([[[4.0, 4.0, 60.0, 60.0]] * 3], [[1, 1, 1]], size)
    predictions = make_predictions(1, size, targets, torch.Generator().manual_seed(0)).detach()
    assignment = O2F()(predictions, targets, score=SCORE, progress=0.0)
    assert assignment.pairs.gt.tolist() == [0] * 7


def test_locations_whose_box_misses_the_ground_truth_are_no_candidates():
    size = (64, 64)
    targets = make_targets([[[4.0, 4.0, 60.0, 60.0]]], [[0]], size)
    predictions = make_predictions(1, size, targets, torch.Generator().manual_seed(0))
    for boxes in predictions.maps["boxes"]:
        boxes.data.zero_()
    assert len(O2F()(predictions, targets, score=SCORE, progress=0.0).pairs) == 0
    predictions.maps["boxes"][0].data[0, :, 3, 3] = 5.0
    assignment = O2F()(replace(predictions), targets, score=SCORE, progress=0.0)
    assert assignment.target.tolist() == [1.0] and assignment.weight.tolist() == [1.0]  # certain, no soft one


@pytest.mark.parametrize("boxes", [[], [[10.0, 10.0, 10.0, 30.0]], [[9.0, 9.0, 11.0, 11.0]]])
def test_without_any_location_every_map_has_a_gradient(boxes):
    """No ground truth, one without area, one between the points: only the background is trained."""
    size = (64, 64)
    targets = make_targets([boxes, []], [[0] * len(boxes), []], size)
    predictions = make_predictions(2, size, targets, torch.Generator().manual_seed(0))
    losses = reduce_losses(make_criterion()(predictions, targets, 0.0))
    assert losses["loss_bbox"] == 0 and losses["loss_cls"] > 0
    sum(losses.values()).backward()
    assert all(x.grad is not None and not x.grad.any() for x in predictions.maps["boxes"])
    assert all(x.grad.any() for x in predictions.maps["logits"] + predictions.maps["quality"])


@pytest.mark.parametrize("name", ["logits", "boxes", "quality"])
def test_a_diverged_prediction_shows_in_the_loss(name):
    size = (64, 64)
    targets = make_targets([[[0.0, 0.0, 60.0, 60.0]]], [[0]], size)
    predictions = make_predictions(1, size, targets, torch.Generator().manual_seed(0))
    with torch.no_grad():
        predictions.maps[name][0][0, :, 4, 4] = torch.nan
    assert sum(reduce_losses(make_criterion()(predictions, targets, 0.0)).values()).isnan()


def test_one_class():
    size = (64, 64)
    targets = make_targets([[[4.0, 4.0, 60.0, 60.0], [0.0, 0.0, 30.0, 30.0]]], [[0, 0]], size)
    predictions = make_predictions(1, size, targets, torch.Generator().manual_seed(0)).detach()
    predictions = DensePredictions(
        predictions.priors,
        predictions.codec,
        predictions.maps | {"logits": [x[:, :1].requires_grad_() for x in predictions.maps["logits"]]},
    )
    losses = reduce_losses(make_criterion(topk=4)(predictions, targets, 0.0))
    assert sum(losses.values()).isfinite()
