"""Choosing among candidate pairs with scatter reductions."""

import torch
from torch import Tensor

from la_det.structures import Pairs, Priors, Targets


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


def best_of_groups(group: Tensor, value: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs with the largest values of each group, ties to the first pair.

    Args:
        group: [P] int64, 0 <= group < len(limit).
        value: [P] float32; NaN counts as infinite, so that it does not hide.
        limit: [groups] int64, how many pairs of each group are wanted.

    Returns:
        int64 indices into the pairs, ascending by group, then descending by value; and each one's rank, from 0.
    """
    value = torch.where(value.isnan(), torch.inf, value) + 0.0  # + 0.0: neither of two zeros is larger
    bits = value.view(torch.int32).to(torch.int64)
    ascending = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # integers in the order of the floats
    order = ((group << 32) - ascending).argsort(stable=True)
    group = group[order]
    starts = torch.searchsorted(group, torch.arange(len(limit), device=group.device))
    rank = torch.arange(len(group), device=group.device) - starts[group]
    wanted = (rank < limit[group]).nonzero().squeeze(1)  # host synchronisation: their number
    return order[wanted], rank[wanted]


def best_per_prior(pairs: Pairs, value: Tensor, priors: Priors, num_images: int) -> Tensor:
    """Index of the best pair of each location that appears in `pairs`, ties to the first pair."""
    return best_in_group(pairs.image * len(priors) + pairs.prior, value, num_images * len(priors))


def best_of_each(pairs: Pairs, value: Tensor, priors: Priors, targets: Targets) -> Pairs:
    """Each ground truth's best pair; of several ground truths at one location only the best pair stays.

    Ties go to the first pair. Unlike exact matching, a ground truth that loses its location gets no other. NaN is the
    largest value, so that it shows in the losses.
    """
    value = value.nan_to_num(nan=torch.inf)
    best = best_in_group(pairs.gt, value, len(targets))
    return pairs[best[best_per_prior(pairs[best], value[best], priors, targets.num_images)]]
