"""IoU, L1 and RetinaNet's losses against their formulas, pair by pair; their normalisers."""

import math
from dataclasses import replace

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from la_det.modeling.criteria import (
    Decision,
    IoULoss,
    RelativeL1Loss,
    RetinaNetBoxLoss,
    RetinaNetFocalLoss,
    reduce_losses,
)
from la_det.references.scene import make_targets
from la_det.structures import (
    AnchorGenerator,
    Assignment,
    DeltaCodec,
    DensePredictions,
    LTRBCodec,
    Pairs,
    PointGenerator,
    Score,
)

GRIDS = [(4, 5), (2, 3)]
N, K, A = 2, 3, 2
TARGETS = make_targets([[[4, 6, 28, 30], [10, 4, 38, 22]], [[0, 0, 12, 30]]], [[2, 0], [1]], size=(30, 38))
PAIRS = Pairs(torch.tensor([0, 0, 0, 1]), torch.tensor([6, 7, 21, 5]), torch.tensor([0, 1, 1, 2]))
NO_PAIRS = Pairs(*torch.zeros(3, 0, dtype=torch.int64))


def make_predictions(per_cell: int) -> DensePredictions:
    torch.manual_seed(0)
    if per_cell == 1:
        generator, codec, boxes = PointGenerator(strides=(8, 16)), LTRBCodec(), torch.rand
    else:
        generator, codec, boxes = AnchorGenerator(strides=(8, 16), ratios=(0.5, 2.0)), DeltaCodec(), torch.randn
    maps = {
        "logits": [torch.randn(N, per_cell * K, *size) for size in GRIDS],
        "boxes": [(20 if per_cell == 1 else 0.3) * boxes(N, per_cell * 4, *size) for size in GRIDS],
    }
    maps = {name: [x.requires_grad_() for x in levels] for name, levels in maps.items()}
    return DensePredictions(generator(GRIDS, torch.device("cpu")), codec, maps)


def evaluate(term, predictions, assignment):
    return term(Decision(predictions, TARGETS, assignment, Score()))


def box_pairs(predictions):
    """Predicted box and ground truth of each pair, as lists of numbers."""
    boxes = predictions.boxes_at(PAIRS.image, PAIRS.prior).tolist()
    return list(zip(boxes, TARGETS.boxes[PAIRS.gt].tolist(), strict=True))


def test_relative_l1():
    predictions = make_predictions(1)
    targets = replace(TARGETS, image_sizes=((30, 38), (24, 32)))
    expected = 0.0
    for (box, gt), image in zip(box_pairs(predictions), PAIRS.image.tolist(), strict=True):
        height, width = targets.image_sizes[image]
        for (lower, upper, gt_lower, gt_upper), size in (
            ((box[0], box[2], gt[0], gt[2]), width),
            ((box[1], box[3], gt[1], gt[3]), height),
        ):
            expected += abs((lower + upper) - (gt_lower + gt_upper)) / 2 / size
            expected += abs((upper - lower) - (gt_upper - gt_lower)) / size
    term = RelativeL1Loss()(Decision(predictions, targets, Assignment(PAIRS), Score()))
    assert term.weight * term.numerator.item() == pytest.approx(5 * expected, rel=1e-5)
    assert (term.normaliser, term.scope, term.floor) == (4, "world", 0)


def test_relative_l1_of_corners():
    predictions = make_predictions(1)
    expected = 0.0
    for (box, gt), image in zip(box_pairs(predictions), PAIRS.image.tolist(), strict=True):
        height, width = TARGETS.image_sizes[image]
        expected += sum(abs(a - b) / size for a, b, size in zip(box, gt, (width, height) * 2, strict=True))
    term = RelativeL1Loss(corners=True, floor=1.0)(Decision(predictions, TARGETS, Assignment(PAIRS), Score()))
    assert term.weight * term.numerator.item() == pytest.approx(5 * expected, rel=1e-5)
    assert (term.normaliser, term.floor) == (4, 1)


def test_iou_loss_is_weighted_by_centerness():
    predictions = make_predictions(1)
    total = weights = 0.0
    for (box, gt), (x, y) in zip(box_pairs(predictions), predictions.priors.points[PAIRS.prior].tolist(), strict=True):
        left, top, right, bottom = x - gt[0], y - gt[1], gt[2] - x, gt[3] - y
        assert min(left, top, right, bottom) > 0
        u = math.sqrt(min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom))
        inter = max(min(box[2], gt[2]) - max(box[0], gt[0]), 0) * max(min(box[3], gt[3]) - max(box[1], gt[1]), 0)
        union = (box[2] - box[0]) * (box[3] - box[1]) + (gt[2] - gt[0]) * (gt[3] - gt[1]) - inter
        total -= u * math.log(max(inter / union, 1e-6))
        weights += u
    term = evaluate(IoULoss(), predictions, Assignment(PAIRS))
    assert term.weight * term.numerator.item() == pytest.approx(total, rel=1e-5)
    assert term.normaliser.item() == pytest.approx(weights, rel=1e-5)
    assert (term.scope, term.floor) == ("world", 1e-6)


def test_retinanet():
    """Dropped anchors have no classification loss; the normaliser counts at least 1 for each image."""
    predictions = make_predictions(A)
    dropped = torch.tensor([0, 1, 1]), torch.tensor([0, 50, 51])
    assignment = Assignment(PAIRS[torch.tensor([0, 1, 2])], dropped=dropped)  # none in the second image
    target, kept = torch.zeros(N, len(predictions.priors), K), torch.ones(N, len(predictions.priors), 1)
    target[0, [6, 7, 21], [2, 0, 0]] = 1
    kept[dropped] = 0
    logits = predictions.joined("logits").transpose(1, 2)
    expected = 2 * (kept * sigmoid_focal_loss(logits, target, 0.25, 2.0)).sum()
    term = evaluate(RetinaNetFocalLoss(weight=2.0), predictions, assignment)
    torch.testing.assert_close(term.weight * term.numerator, expected)
    assert (term.normaliser, term.scope) == (4, "local")

    anchors = predictions.priors.boxes[[6, 7, 21]].tolist()
    raw = predictions.joined("boxes")[0, :, [6, 7, 21]].T.tolist()
    expected = 0.0
    for a, delta, gt in zip(anchors, raw, TARGETS.boxes[[0, 1, 1]].tolist(), strict=True):
        w, h = a[2] - a[0], a[3] - a[1]
        expected += abs(delta[0] - ((gt[0] + gt[2]) - (a[0] + a[2])) / 2 / w)
        expected += abs(delta[1] - ((gt[1] + gt[3]) - (a[1] + a[3])) / 2 / h)
        expected += abs(delta[2] - math.log((gt[2] - gt[0]) / w)) + abs(delta[3] - math.log((gt[3] - gt[1]) / h))
    term = evaluate(RetinaNetBoxLoss(weight=2.0), predictions, assignment)
    assert term.weight * term.numerator.item() == pytest.approx(2 * expected, rel=1e-5)
    assert (term.normaliser, term.scope) == (4, "local")


@pytest.mark.parametrize(
    ("loss", "per_cell"),
    [(IoULoss(), 1), (RelativeL1Loss(), 1), (RetinaNetFocalLoss(), A), (RetinaNetBoxLoss(), A)],
    ids=lambda x: type(x).__name__,
)
def test_without_positives(loss, per_cell):
    """The loss of boxes is 0; either is a number with a gradient for every map, as several processes need it."""
    predictions = make_predictions(per_cell)
    value = reduce_losses({"loss": evaluate(loss, predictions, Assignment(NO_PAIRS))})["loss"]
    value.backward()
    name = "logits" if isinstance(loss, RetinaNetFocalLoss) else "boxes"
    assert value.isfinite() and (value > 0) == (name == "logits")
    assert all(x.grad is not None and x.grad.isfinite().all() for x in predictions.maps[name])
