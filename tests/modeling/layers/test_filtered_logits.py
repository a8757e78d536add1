"""DATE's filtered class logits."""

import math

import torch

from la_det.modeling.layers import filtered_logits


def test_is_the_logit_of_the_product():
    c, f = torch.randn(2, 3, 4, 5), torch.randn(2, 1, 4, 5)
    p = c.double().sigmoid() * f.double().sigmoid()
    torch.testing.assert_close(filtered_logits(c, f), p.logit().float(), rtol=1e-5, atol=1e-5)


def test_probabilities_are_clamped():
    """Numerator and denominator each: where p is clamped, 1 - p still moves a little."""
    c, f = torch.tensor([-50.0, 50.0]).view(1, 2, 1, 1).requires_grad_(), torch.tensor([50.0]).view(1, 1, 1, 1)
    logits = filtered_logits(c, f)
    torch.testing.assert_close(logits.flatten(), torch.tensor([math.log(1e-5), -math.log(1e-5)]))
    logits.sum().backward()
    assert c.grad.isfinite().all()
