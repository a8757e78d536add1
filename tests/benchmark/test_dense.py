"""The dense forms that the benchmark measures beside ours decide the same."""

import pytest
import torch

from la_det.benchmark import dense, matching, scene
from la_det.matchers import DW

# Exact ties and thresholds that single precision turns may differ in a few pairs.
ALLOWED = 0.01


@pytest.mark.parametrize("scheme", sorted(matching.SCHEMES))
def test_decides_as_the_matcher_does(scheme, monkeypatch):
    monkeypatch.setattr(scene, "HEIGHT", 192)
    monkeypatch.setattr(scene, "WIDTH", 320)
    monkeypatch.setattr(scene, "PADDED_WIDTH", 320)
    monkeypatch.setattr(matching, "HEIGHT", 192)
    monkeypatch.setattr(matching, "WIDTH", 320)
    num_classes = 1 if scheme in matching.CROWD_SCHEMES else 5
    case = matching.build_case(scheme, scene.make_scene(12, num_classes), num_classes, "cpu")
    for criterion in case.criteria:
        predictions = case.predictions[criterion.branch]
        targets, assignment = criterion.assign(predictions, case.targets, 0.0)
        decisions = dense.assign(criterion, predictions, targets)
        assert len(assignment.pairs) > 0
        if isinstance(criterion.matcher, DW):
            weight = torch.stack([w_pos.sum() for w_pos, _ in decisions]).sum()
            torch.testing.assert_close(assignment.weight.sum(), weight)
            continue
        ours = set(zip(assignment.pairs.image.tolist(), assignment.pairs.prior.tolist(), strict=True))
        theirs = {(i, int(r)) for i, matched in enumerate(decisions) for r in (matched >= 0).nonzero()}
        assert len(ours ^ theirs) <= ALLOWED * len(ours | theirs)


def test_a_loss_reaches_every_map_it_reads():
    case = matching.build_case("poto", scene.make_scene(3, 2), 2, "cpu")
    (criterion,) = case.criteria
    loss = dense.loss(criterion, case.predictions["main"], case.targets)
    gradients = torch.autograd.grad(loss, case.predictions["main"].maps["logits"])
    assert loss > 0 and all(g.abs().sum() > 0 for g in gradients)


def test_rules_that_would_not_fit_are_left_out():
    case = matching.build_case("loss", scene.make_scene(300, 80), 80, "cpu")
    assert not case.dense_fits()
    assert matching.build_case("poto", scene.make_scene(300, 80), 80, "cpu").dense_fits()
