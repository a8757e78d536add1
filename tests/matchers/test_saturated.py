"""Logits far beyond what sigmoids resolve, as early and late in a training: losses and gradients stay finite."""

from dataclasses import replace

import pytest
import torch

from la_det.benchmark.matching import SCHEMES, scheme_case
from la_det.modeling.criteria import loss_terms, reduce_losses

SATURATED = {
    "both signs": lambda x: 60 * x,
    "certain background": lambda x: torch.full_like(x, -60),
    "certain objects": lambda x: torch.full_like(x, 60),
    "on the brink": lambda x: x - 51.8,  # sigma(c) sigma(f) is around the least number above 0
}
LOGITS = ("logits", "filter", "quality")


@pytest.mark.parametrize("change", SATURATED.values(), ids=SATURATED)
@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_losses_and_gradients_are_finite(scheme, change):
    case = scheme_case(scheme, 5, "cpu", (256, 320))
    leaves, branches = [], {}
    for branch, predictions in case.predictions.items():
        maps = {
            name: [(change(x.detach()) if name in LOGITS else x.detach()).requires_grad_() for x in levels]
            for name, levels in predictions.maps.items()
        }
        leaves += [x for levels in maps.values() for x in levels]
        branches[branch] = replace(predictions, maps=maps)
    losses = reduce_losses(loss_terms(case.criteria, branches, case.targets, 0.5))
    for name, loss in losses.items():
        assert loss.isfinite(), name
    for grad in torch.autograd.grad(sum(losses.values()), leaves, allow_unused=True):
        assert grad is None or grad.isfinite().all()
