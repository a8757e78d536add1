"""Quality focal and varifocal loss against dense targets, soft-target losses, and dropped priors."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.structures import Boxes, Instances

from la_det.geometry import aligned_giou
from la_det.modeling.criteria import Decision, FocalLoss, GIoULoss, QualityFocalLoss, SoftTargetLoss, VarifocalLoss
from la_det.structures import (
    AnchorGenerator,
    Assignment,
    DensePredictions,
    LTRBCodec,
    Pairs,
    PointGenerator,
    Score,
    Targets,
)

GRID_SIZES = [(4, 5), (2, 3)]
N, K = 2, 3
CLASSES = torch.tensor([2, 0, 1])


def make_predictions(per_cell: int = 1, scale: float = 2.0) -> DensePredictions:
    torch.manual_seed(0)
    generator = PointGenerator(strides=(8, 16))
    if per_cell > 1:
        generator = AnchorGenerator(strides=(8, 16), sizes=(4.0,) * per_cell)
    priors = generator(GRID_SIZES, torch.device("cpu"))
    maps = {
        name: [(scale * torch.randn(N, per_cell * c, h, w)).requires_grad_() for h, w in GRID_SIZES]
        for name, c in (("logits", K), ("boxes", 4), ("quality", 1))
    }
    return DensePredictions(priors, LTRBCodec(), maps)


def make_targets() -> Targets:
    boxes = [torch.tensor([[0.0, 0, 30, 30], [5, 5, 20, 25]]), torch.tensor([[8.0, 0, 39, 20]])]
    classes = [CLASSES[:2], CLASSES[2:]]
    return Targets.from_instances(
        [Instances((32, 40), gt_boxes=Boxes(b), gt_classes=c) for b, c in zip(boxes, classes, strict=True)]
    )


def make_assignment(dropped=None) -> Assignment:
    pairs = Pairs(torch.tensor([0, 0, 1, 1]), torch.tensor([6, 21, 3, 7]), torch.tensor([0, 1, 2, 2]))
    return Assignment(pairs, target=torch.tensor([0.7, 0.0, 1.0, 0.2]), dropped=dropped)


def dense(predictions: DensePredictions, assignment: Assignment, soft: bool = True):
    """[N, R, K] logits, targets, mask of positives, and mask of what counts."""
    logits = predictions.joined("logits").transpose(1, 2)
    target, positive = torch.zeros_like(logits), torch.zeros(logits.shape, dtype=torch.bool)
    pairs = assignment.pairs
    where = pairs.image, pairs.prior, CLASSES[pairs.gt]
    target[where] = assignment.target if soft else 1.0
    positive[where] = True
    counted = torch.ones(logits.shape[:2], dtype=torch.bool)
    if assignment.dropped is not None:
        counted[assignment.dropped] = False
    return logits, target, positive, counted.unsqueeze(-1)


def quality_focal(logits, target, positive, counted):
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return ((target - logits.sigmoid()) ** 2 * bce * counted).sum()


def varifocal(logits, target, positive, counted):
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (torch.where(positive, target, 0.75 * logits.sigmoid() ** 2) * bce * counted).sum()


def focal(logits, target, positive, counted):
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    weight = torch.where(positive, 0.25 * (1 - logits.sigmoid()) ** 2, 0.75 * logits.sigmoid() ** 2)
    return (weight * bce * counted).sum()


LOSSES = {
    "qfl": (QualityFocalLoss(), quality_focal),
    "vfl": (VarifocalLoss(), varifocal),
    "focal": (FocalLoss(), focal),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dropped", [None, (torch.tensor([0, 1, 1]), torch.tensor([0, 25, 9]))])
@pytest.mark.parametrize("channels_last", [False, True])
def test_same_as_dense_targets(name, dropped, channels_last):
    predictions, assignment = make_predictions(), make_assignment(dropped)
    if channels_last:
        for levels in predictions.maps.values():
            levels[:] = [x.detach().to(memory_format=torch.channels_last).requires_grad_() for x in levels]
    term, formula = LOSSES[name]
    result = term(Decision(predictions, make_targets(), assignment, Score()))
    expected = formula(*dense(predictions, assignment, soft=name != "focal"))
    torch.testing.assert_close(result.weight * result.numerator, expected)
    assert result.normaliser == 4 and result.floor == 1 and result.scope == "world"
    leaves = predictions.maps["logits"]
    for grad, expected_grad in zip(
        torch.autograd.grad(result.weight * result.numerator, leaves),
        torch.autograd.grad(expected, leaves),
        strict=True,
    ):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-6)


def test_dropped_priors_of_cells_with_several():
    """Only the dropped anchor of a cell has no gradient."""
    predictions = make_predictions(per_cell=3)
    image, prior = torch.tensor([0, 1]), torch.tensor([3 * 7 + 2, 3 * 20 + 1])  # cell 7, anchor 2; level 1, anchor 1
    none = torch.zeros(0, dtype=torch.int64)
    assignment = Assignment(Pairs(none, none, none), dropped=(image, prior))
    FocalLoss()(Decision(predictions, make_targets(), assignment, Score())).numerator.backward()
    is_zero = [x.grad.view(N, 3, K, -1) == 0 for x in predictions.maps["logits"]]
    expected = [torch.zeros(x.shape, dtype=torch.bool) for x in is_zero]
    expected[0][0, 2, :, 7] = True
    expected[1][1, 1, :, 0] = True
    assert all(torch.equal(a, e) for a, e in zip(is_zero, expected, strict=True))


def test_dropped_priors_with_a_gate():
    predictions = make_predictions()
    none = torch.zeros(0, dtype=torch.int64)
    assignment = Assignment(Pairs(none, none, none), dropped=(torch.tensor([1]), torch.tensor([8])))
    FocalLoss()(Decision(predictions, make_targets(), assignment, Score("quality"))).numerator.backward()
    for name in ("logits", "quality"):
        grad = predictions.maps[name][0].grad.flatten(2)
        assert not grad[1, :, 8].any() and grad[0, :, 8].all() and grad[1, :, 7].all()


@pytest.mark.parametrize("name", ["qfl", "vfl"])
@pytest.mark.parametrize("logit", [-200.0, -104.0, 17.0, 200.0])
def test_extreme_logits_are_finite(name, logit):
    """The official Dynamic ATSS gives NaN from about 17 on."""
    predictions = make_predictions()
    with torch.no_grad():
        for x in predictions.maps["logits"]:
            x.fill_(logit)
    loss = LOSSES[name][0](Decision(predictions, make_targets(), make_assignment(), Score())).numerator
    loss.backward()
    assert loss.isfinite()
    assert all(x.grad.isfinite().all() for x in predictions.maps["logits"])


def test_soft_target_trains_the_quality_branch():
    predictions, assignment = make_predictions(), make_assignment()
    term = SoftTargetLoss(weight=2.0)(Decision(predictions, make_targets(), assignment, Score()))
    z = predictions.joined("quality")[assignment.pairs.image, 0, assignment.pairs.prior]
    expected = 2 * F.binary_cross_entropy_with_logits(z, assignment.target, reduction="sum")
    torch.testing.assert_close(term.weight * term.numerator, expected)
    assert term.normaliser == 4


def test_giou_weighted_by_the_soft_target():
    predictions, targets, assignment = make_predictions(), make_targets(), make_assignment()
    term = GIoULoss(weight=2.0, weighting="target", floor=1e-6)(Decision(predictions, targets, assignment, Score()))
    pairs = assignment.pairs
    giou = aligned_giou(predictions.boxes_at(pairs.image, pairs.prior), targets.boxes[pairs.gt])
    torch.testing.assert_close(term.weight * term.numerator, 2 * (assignment.target * (1 - giou)).sum())
    torch.testing.assert_close(term.normaliser, assignment.target.sum())


@pytest.mark.parametrize("name", LOSSES)
def test_without_positives_every_map_has_a_gradient(name):
    predictions = make_predictions()
    none = torch.zeros(0, dtype=torch.int64)
    assignment = Assignment(Pairs(none, none, none), target=torch.zeros(0))
    losses = (LOSSES[name][0], GIoULoss(weighting="target", floor=1e-6), SoftTargetLoss())
    terms = [loss(Decision(predictions, make_targets(), assignment, Score())) for loss in losses]
    sum(term.numerator for term in terms).backward()
    assert terms[0].numerator > 0 and terms[1].numerator == 0 and terms[2].numerator == 0
    assert all(x.grad is not None and x.grad.isfinite().all() for levels in predictions.maps.values() for x in levels)
