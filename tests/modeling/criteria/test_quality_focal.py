"""Quality focal and varifocal loss against dense targets, soft-target losses, and dropped priors."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from detectron2.structures import Boxes, Instances

from la_det.geometry import aligned_ciou, aligned_giou
from la_det.modeling.criteria import (
    BySoftTargets,
    CIoULoss,
    CrossEntropyLoss,
    Decision,
    FocalLoss,
    GIoULoss,
    QualityFocalLoss,
    SoftTargetLoss,
    VarifocalLoss,
    reduce_losses,
)
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


def cross_entropy(logits, target, positive, counted):
    return (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * counted).sum()


LOSSES = {
    "qfl": (QualityFocalLoss(), quality_focal),
    "qfl by targets": (QualityFocalLoss(normaliser="targets"), quality_focal),
    "bce": (CrossEntropyLoss(), cross_entropy),
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
    normaliser = assignment.target.sum().item() if name in ("bce", "qfl by targets") else 4
    assert result.normaliser.item() == pytest.approx(normaliser) and result.floor == 1 and result.scope == "world"
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


@pytest.mark.parametrize("name", ["qfl", "vfl", "bce"])
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


def test_ciou_weighted_by_the_soft_target():
    predictions, targets, assignment = make_predictions(), make_targets(), make_assignment()
    term = CIoULoss(weight=7.5)(Decision(predictions, targets, assignment, Score()))
    pairs = assignment.pairs
    ciou = aligned_ciou(predictions.boxes_at(pairs.image, pairs.prior), targets.boxes[pairs.gt])
    torch.testing.assert_close(term.weight * term.numerator, 7.5 * (assignment.target * (1 - ciou)).sum())
    torch.testing.assert_close(term.normaliser, assignment.target.sum())
    assert term.floor == 1


def test_quality_focal_of_a_geometric_mean():
    """With dense targets and probabilities, as the official code has it."""
    predictions, assignment, score = make_predictions(), make_assignment(), Score("quality", square_root=True)
    term = QualityFocalLoss(normaliser="targets", floor=0.0)(Decision(predictions, make_targets(), assignment, score))
    logits, target, *_ = dense(predictions, assignment)
    p = (logits.sigmoid() * predictions.joined("quality").transpose(1, 2).sigmoid()).sqrt()
    expected = ((target - p).square() * F.binary_cross_entropy(p, target, reduction="none")).sum()
    torch.testing.assert_close(term.numerator, expected)
    leaves = predictions.maps["logits"] + predictions.maps["quality"]
    for grad, expected_grad in zip(
        torch.autograd.grad(term.numerator, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", [FocalLoss(floor=0.0), QualityFocalLoss(normaliser="targets", floor=0.0)])
def test_without_a_floor_small_normalisers_count_and_none_is_one(loss):
    predictions, assignment = make_predictions(), make_assignment()
    for target in (torch.tensor([0.2, 0.0, 0.1, 0.1]), torch.zeros(4)):
        term = loss(Decision(predictions, make_targets(), replace(assignment, target=target), Score()))
        divisor = len(target) if isinstance(loss, FocalLoss) else target.sum().item() or 1
        assert reduce_losses({"loss": term})["loss"].item() == pytest.approx(term.numerator.item() / divisor)


def test_losses_switch_with_the_targets():
    both = BySoftTargets(without=FocalLoss(weight=2.0), given=QualityFocalLoss(weight=3.0))
    soft = make_assignment()
    for assignment, weight in ((soft, 3), (replace(soft, target=None), 2)):
        assert both(Decision(make_predictions(), make_targets(), assignment, Score())).weight == weight


@pytest.mark.parametrize("name", LOSSES)
def test_without_positives_every_map_has_a_gradient(name):
    predictions = make_predictions()
    none = torch.zeros(0, dtype=torch.int64)
    assignment = Assignment(Pairs(none, none, none), target=torch.zeros(0))
    losses = (LOSSES[name][0], GIoULoss(weighting="target", floor=1e-6), SoftTargetLoss(), CIoULoss())
    terms = [loss(Decision(predictions, make_targets(), assignment, Score())) for loss in losses]
    sum(term.numerator for term in terms).backward()
    assert terms[0].numerator > 0 and not any(term.numerator for term in terms[1:])
    assert all(x.grad is not None and x.grad.isfinite().all() for levels in predictions.maps.values() for x in levels)
