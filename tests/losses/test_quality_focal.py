"""The analytic gradient against autograd in double precision."""

import pytest
import torch

from la_det.losses.quality_focal import quality_focal_correction
from la_det.structures import Score


@pytest.mark.parametrize("score", [Score(), Score(gate="quality"), Score(gate="quality", square_root=True)])
@pytest.mark.parametrize("spread", [2.0, 12.0])
def test_same_as_autograd(score, spread):
    generator = torch.Generator().manual_seed(0)
    c, f = (spread * torch.randn(2, 200, generator=generator)).unbind()
    q = torch.rand(200, generator=generator)
    q[:20] = 0
    leaves = [x.clone().requires_grad_() for x in ((c,) if score.gate is None else (c, f))]
    total = quality_focal_correction(score, leaves[0], None if score.gate is None else leaves[1], q)
    grads = torch.autograd.grad(3 * total, leaves)
    exact = [x.double().requires_grad_() for x in ((c,) if score.gate is None else (c, f))]
    log_p, log_complement = score.logs(exact[0], None if score.gate is None else exact[1])
    p, q = log_p.exp(), q.double()
    entropy = -(q * log_p + (1 - q) * log_complement)
    expected = ((q - p) ** 2 * entropy + p**2 * log_complement).sum()
    torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=1e-4)
    for grad, other in zip(grads, torch.autograd.grad(3 * expected, exact), strict=True):
        torch.testing.assert_close(grad.double(), other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("score", [Score(), Score(gate="quality"), Score(gate="quality", square_root=True)])
def test_extreme_logits_stay_finite(score):
    c = torch.tensor([-200.0, 200.0, 60.0, 0.0, 200.0]).requires_grad_()
    f = torch.tensor([-200.0, 60.0, -60.0, 60.0, 200.0]).requires_grad_()
    leaves = (c,) if score.gate is None else (c, f)
    q = torch.tensor([0.5, 0.5, 0.0, 1.0, 0.3])
    total = quality_focal_correction(score, c, None if score.gate is None else f, q)
    grads = torch.autograd.grad(total, leaves)
    assert total.isfinite() and all(grad.isfinite().all() for grad in grads)
