"""The metric of task-aligned assignment (TOOD, ICCV 2021, section 3.2)."""

import torch
from torch import Tensor


def alignment(p: Tensor, u: Tensor, alpha: float, beta: float) -> Tensor:
    """t = p^alpha u^beta of classification probabilities and overlaps."""
    return p**alpha * u**beta


def normalised_alignment(t: Tensor, u: Tensor, gt: Tensor, num_gts: int, eps: float) -> Tensor:
    """The soft targets t u_max / (t_max + eps), with the largest t and u of each ground truth's positives.

    Args:
        t, u: [P] of the positives.
        gt: [P] int64, their ground truths.
        num_gts: G.
        eps: added to the largest t.
    """
    both = torch.stack([t, u])
    t_max, u_max = both.new_zeros(2, num_gts).scatter_reduce_(1, gt.expand_as(both), both, "amax")
    return t * (u_max / (t_max + eps)).index_select(0, gt)
