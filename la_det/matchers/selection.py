"""Choosing among candidate pairs with scatter reductions."""

import torch
from torch import Tensor

from la_det.structures import Pairs, Priors


def best_in_group(group: Tensor, value: Tensor, num_groups: int) -> Tensor:
    """Index of the pair with the largest value of each group, ties to the first pair.

    Args:
        group: [P] int64, 0..num_groups-1.
        value: [P] float.

    Returns:
        int64 indices into the pairs, one per non-empty group, ascending by group.
    """
    best = value.new_full((num_groups,), -torch.inf).scatter_reduce_(0, group, value, "amax")
    order = torch.arange(len(group), device=group.device)
    order = torch.where(value == best[group], order, len(group))
    first = torch.full_like(best, len(group), dtype=torch.int64).scatter_reduce_(0, group, order, "amin")
    return first[first < len(group)]  # host synchronisation: the number of winners


def best_per_prior(pairs: Pairs, value: Tensor, priors: Priors, num_images: int) -> Tensor:
    """Index of the best pair of each location that appears in `pairs`, ties to the first pair."""
    return best_in_group(pairs.image * len(priors) + pairs.prior, value, num_images * len(priors))
