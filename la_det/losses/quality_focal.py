"""The quality focal loss of single entries (Li et al., NeurIPS 2020, eq. 6; beta = 2), with an analytic gradient."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from la_det.structures import Score


def quality_focal_correction(score: Score, c: Tensor, f: Tensor | None, q: Tensor) -> Tensor:
    """What entries cost more than as background: the sum of |q - p|^2 BCE(p, q) - p^2 BCE(p, 0); stable for all logits.

    Args:
        score: what p is.
        c: [P] class logits.
        f: [P] gate logits; None without a gate.
        q: [P] soft targets, without gradient.
    """
    logits = c.unsqueeze(0) if f is None else torch.stack([c, f])
    return _Correction.apply(logits, q, score.square_root)


class _Correction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, q: Tensor, square_root: bool) -> Tensor:
        """With ln p and ln(1 - p) as in `Score`, dp/dlogit = p sigma(-logit), and half of that with the square root."""
        log_sigmoid, log_opposite = F.logsigmoid(torch.stack([logits, -logits])).unbind()
        log_p, log_complement = log_sigmoid[0], log_opposite[0]
        if len(logits) == 2:
            log_complement = log_complement.logaddexp(log_p + log_opposite[1])
            log_p = log_p + log_sigmoid[1]
            if square_root:
                log_p = log_p / 2
        p = log_p.exp()
        if square_root:
            log_complement = log_complement - p.log1p()
        gap, p_squared = q - p, p * p
        gap_squared = gap * gap
        cross_entropy = log_complement.lerp(log_p, q)  # less than 0
        total = torch.dot(p_squared, log_complement) - torch.dot(gap_squared, cross_entropy)
        # Half of p times the derivative by p: without 1 / (1 - p), and the factor of p / (1 - p), which can overflow.
        half = (p_squared * log_complement).addcmul_(p * gap, cross_entropy).addcmul_(gap_squared, q, value=-0.5)
        of_odds = torch.addcmul(gap_squared - p_squared, gap_squared, q, value=-1)
        odds = (log_opposite + (log_p - log_complement)).exp_()  # times sigma(-logit): at most 1
        slope = log_opposite.exp_().mul_(half).addcmul_(of_odds, odds, value=0.5)
        ctx.save_for_backward(slope if square_root else slope.mul_(2))
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return grad * slope, None, None
