"""YOLOX's losses against their formulas on dense tensors, and the focal loss of shared priors."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import box_iou, sigmoid_focal_loss

from la_det.modeling.criteria import (
    Decision,
    FocalLoss,
    ObjectnessLoss,
    PositiveClassLoss,
    SquaredIoULoss,
    reduce_losses,
)
from la_det.references.scene import make_targets
from la_det.structures import Assignment, DensePredictions, LTRBCodec, Pairs, PointGenerator, Score

GRIDS = [(4, 5), (2, 3)]
N, K = 2, 3
TARGETS = make_targets([[[4, 6, 28, 30], [10, 4, 38, 22]], [[0, 0, 12, 30]]], [[2, 0], [1]], size=(30, 38))
PAIRS = Pairs(torch.tensor([0, 0, 0, 1]), torch.tensor([6, 7, 21, 5]), torch.tensor([0, 1, 1, 2]))
ASSIGNMENT = Assignment(PAIRS, target=torch.tensor([0.9, 0.2, 0.5, 0.7]))
NOTHING = Assignment(PAIRS[torch.zeros(4, dtype=torch.bool)], target=torch.zeros(0))
LOSSES = [SquaredIoULoss(), ObjectnessLoss(), PositiveClassLoss()]


def make_predictions() -> DensePredictions:
    torch.manual_seed(0)
    maps = {
        "logits": [torch.randn(N, K, *size) for size in GRIDS],
        "boxes": [20 * torch.rand(N, 4, *size) for size in GRIDS],
        "quality": [torch.randn(N, 1, *size) for size in GRIDS],
    }
    priors = PointGenerator(strides=(8, 16))(GRIDS, torch.device("cpu"))
    return DensePredictions(priors, LTRBCodec(), {k: [x.requires_grad_() for x in v] for k, v in maps.items()})


def evaluate(loss, predictions, assignment=ASSIGNMENT):
    return loss(Decision(predictions, TARGETS, assignment, Score()))


def test_squared_iou():
    predictions = make_predictions()
    boxes = predictions.boxes()[PAIRS.image, PAIRS.prior]
    iou = box_iou(boxes, TARGETS.boxes[PAIRS.gt]).diag()
    term = evaluate(SquaredIoULoss(), predictions)
    torch.testing.assert_close(term.weight * term.numerator, 5 * (1 - iou**2).sum())
    (actual,) = torch.autograd.grad(term.numerator, predictions.maps["boxes"][0], retain_graph=True)
    (expected,) = torch.autograd.grad((1 - iou**2).sum(), predictions.maps["boxes"][0])
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("dropped", [None, (torch.tensor([0, 1]), torch.tensor([0, 22]))])
def test_objectness(dropped):
    """Of all locations; the target is 1, not the IoU."""
    predictions = make_predictions()
    target = torch.zeros(N, 26)
    target[PAIRS.image, PAIRS.prior] = 1
    logits = predictions.joined("quality").squeeze(1)
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if dropped is not None:
        loss[dropped] = 0
    term = evaluate(ObjectnessLoss(), predictions, replace(ASSIGNMENT, dropped=dropped))
    torch.testing.assert_close(term.weight * term.numerator, loss.sum())


def test_classes_of_positives():
    predictions = make_predictions()
    logits = predictions.joined("logits")[PAIRS.image, :, PAIRS.prior]
    target = torch.zeros(4, K)
    target[range(4), TARGETS.classes[PAIRS.gt]] = ASSIGNMENT.target
    term = evaluate(PositiveClassLoss(), predictions)
    expected = F.binary_cross_entropy_with_logits(logits, target, reduction="sum")
    torch.testing.assert_close(term.weight * term.numerator, expected)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda x: type(x).__name__)
def test_normaliser(loss):
    term = evaluate(loss, make_predictions())
    assert (term.normaliser, term.scope, term.floor) == (4, "world", 1)
    assert evaluate(replace(loss, scope="local"), make_predictions()).scope == "local"


@pytest.mark.parametrize("loss", LOSSES, ids=lambda x: type(x).__name__)
def test_without_positives(loss):
    """A number with a gradient for every map, as several processes need it."""
    predictions = make_predictions()
    value = reduce_losses({"loss": evaluate(loss, predictions, NOTHING)})["loss"]
    value.backward()
    name = {SquaredIoULoss: "boxes", ObjectnessLoss: "quality", PositiveClassLoss: "logits"}[type(loss)]
    assert value.isfinite() and (value > 0) == (name == "quality")
    assert all(x.grad is not None and x.grad.isfinite().all() for x in predictions.maps[name])


def test_only_pairs_that_classify_count_in_the_focal_loss():
    """Three ground truths share a prior, whose class is that of the last one; the normaliser counts all."""
    predictions = make_predictions()
    pairs = Pairs(torch.tensor([0, 0, 1]), torch.tensor([6, 6, 5]), torch.tensor([0, 1, 2]))
    term = evaluate(FocalLoss(), predictions, Assignment(pairs, classifies=torch.tensor([False, True, True])))
    target = torch.zeros(N, K, 26)
    target[0, 0, 6] = target[1, 1, 5] = 1
    expected = sigmoid_focal_loss(predictions.joined("logits"), target, 0.25, 2.0, reduction="sum")
    torch.testing.assert_close(term.numerator, expected)
    assert term.normaliser == 3
