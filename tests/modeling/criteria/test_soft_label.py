"""o2f's classification loss against cross entropy of probabilities on dense tensors, and at extreme logits."""

import pytest
import torch
import torch.nn.functional as F

from la_det.modeling.criteria import Decision, SoftLabelLoss
from la_det.structures import Assignment, DensePredictions, LTRBCodec, Pairs, PointGenerator, Score, Targets

GRIDS = [(3, 4), (2, 2)]
N, K = 2, 3


def make_predictions(scale=1.0) -> DensePredictions:
    priors = PointGenerator(strides=(8, 16))(GRIDS, torch.device("cpu"))
    maps = {
        "logits": [scale * torch.randn(N, K, *size) for size in GRIDS],
        "quality": [scale * torch.randn(N, 1, *size) for size in GRIDS],
    }
    return DensePredictions(priors, LTRBCodec(), {k: [x.requires_grad_() for x in v] for k, v in maps.items()})


def make_assignment(seed=0):
    torch.manual_seed(seed)
    targets = Targets(torch.zeros(3, 4), torch.tensor([0, 2, 1]), torch.tensor([0, 0, 1]), (2, 1), ())
    pairs = Pairs(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 13, 15, 4]), torch.tensor([0, 0, 1, 2]))
    weight, target = torch.tensor([1.0, 0.4, 1.0, 0.4]), torch.tensor([1.0, 0.37, 1.0, 0.2])
    return targets, Assignment(pairs, weight=weight, target=target)


def test_same_as_cross_entropy_of_probabilities():
    targets, assignment = make_assignment()
    predictions = make_predictions()
    term = SoftLabelLoss(weight=1.5)(Decision(predictions, targets, assignment, Score(gate="quality")))
    z = (predictions.joined("logits").sigmoid() * predictions.joined("quality").sigmoid()).double()
    loss = 0.75 * z**2 * F.binary_cross_entropy(z, torch.zeros_like(z), reduction="none")
    for i in range(4):
        image, prior = assignment.pairs.image[i], assignment.pairs.prior[i]
        at = (image, targets.classes[assignment.pairs.gt[i]], prior)
        loss[at] = assignment.weight[i] * F.binary_cross_entropy(z[at], assignment.target[i].double())
    expected = 1.5 * loss.sum()
    torch.testing.assert_close(term.weight * term.numerator, expected.float())
    assert term.normaliser == 4 and term.scope == "world" and term.floor == 1
    leaves = sum(predictions.maps.values(), [])
    actual_grads = torch.autograd.grad(term.weight * term.numerator, leaves, retain_graph=True)
    for actual, wanted in zip(actual_grads, torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [30.0, 300.0])
def test_extreme_logits_have_finite_losses_and_gradients(scale):
    targets, assignment = make_assignment()
    predictions = make_predictions(scale)
    term = SoftLabelLoss()(Decision(predictions, targets, assignment, Score(gate="quality")))
    assert term.numerator.isfinite()
    term.numerator.backward()
    assert all(x.grad.isfinite().all() for x in sum(predictions.maps.values(), []))
