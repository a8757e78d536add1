"""The dense forms that the benchmark measures beside ours decide the same."""

from dataclasses import replace

import pytest
import torch

from la_det.benchmark import dense, matching, scene
from la_det.matchers import DW, AutoAssign
from la_det.references.image import PROGRESS
from la_det.structures import Assignment, Targets

# Exact ties and thresholds that single precision turns may differ in a few pairs.
ALLOWED = 0.01
# Anchors of a cell have the same predicted box in this scene, so costs of whole matchings are equal up to rounding.
TIES = {"onenet_retinanet": 0.25}


@pytest.mark.parametrize("scheme", sorted(matching.SCHEMES))
def test_decides_as_the_matcher_does(scheme, monkeypatch):
    monkeypatch.setattr(matching, "HEIGHT", 192)
    monkeypatch.setattr(matching, "WIDTH", 320)
    num_classes = 1 if scheme in matching.CROWD_SCHEMES else 5
    case = matching.build_case(scheme, scene.make_scene(12, num_classes, size=(192, 320)), num_classes, "cpu")
    for criterion in case.criteria:
        predictions = case.predictions[criterion.branch]
        with torch.no_grad():
            decided = criterion.assign(predictions, case.targets, PROGRESS)
        targets, assignment = decided.targets, decided.assignment
        decisions = dense.assign(criterion, predictions, targets)
        assert len(assignment.pairs) > 0
        if isinstance(criterion.matcher, (DW, AutoAssign)):
            for i, (w_pos, w_neg, *_) in enumerate(decisions):
                ours_pos, ours_neg = both_weights(assignment, targets, i, w_pos, w_neg)
                assert w_pos.any() and (w_neg < 1).any()
                torch.testing.assert_close(ours_pos, w_pos)
                torch.testing.assert_close(ours_neg, w_neg)
            continue
        pairs = assignment.pairs if assignment.classifies is None else assignment.pairs[assignment.classifies]
        columns = (pairs.image, pairs.prior, in_image(pairs.gt, targets))
        ours = set(zip(*(column.tolist() for column in columns), strict=True))
        theirs = {(i, int(r), int(m[r])) for i, m in enumerate(decisions) for r in (m >= 0).nonzero()}
        assert len(ours ^ theirs) <= TIES.get(scheme, ALLOWED) * len(ours | theirs)


def in_image(gt: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Numbers of ground truths within their images."""
    return gt - torch.searchsorted(targets.image, targets.image[gt])


def both_weights(assignment: Assignment, targets: Targets, image: int, *like: torch.Tensor) -> list[torch.Tensor]:
    """An image's positive weights [R, G] and negative weights [R, K]."""
    w_pos, w_neg = torch.zeros_like(like[0]), torch.ones_like(like[1])
    pairs, negatives = assignment.pairs, assignment.negatives
    mine, gt = pairs.image == image, in_image(pairs.gt, targets)
    w_pos[pairs.prior[mine], gt[mine]] = assignment.weight[mine]
    mine = negatives.image == image
    w_neg[negatives.prior[mine], negatives.cls[mine]] = negatives.weight[mine]
    return [w_pos, w_neg]


def test_a_loss_reaches_every_map_it_reads():
    case = matching.build_case("poto", scene.make_scene(3, 2), 2, "cpu")
    (criterion,) = case.criteria
    loss = dense.loss(criterion, case.predictions["main"], case.targets)
    gradients = torch.autograd.grad(loss, case.predictions["main"].maps["logits"])
    assert loss > 0 and all(g.abs().sum() > 0 for g in gradients)


def test_rules_that_would_not_fit_are_left_out():
    case = matching.build_case("loss", scene.make_scene(300, 80), 80, "cpu")
    assert not case.has_dense()
    assert matching.build_case("poto", scene.make_scene(300, 80), 80, "cpu").has_dense()


def test_on_a_gpu_there_is_none():
    case = matching.build_case("poto", scene.make_scene(3, 2), 2, "cpu")
    assert case.has_dense()
    on_gpu = replace(case.targets, boxes=case.targets.boxes.to("meta"))  # any device but the CPU
    assert not replace(case, targets=on_gpu).has_dense()
