"""Choice among candidate pairs by scatter reductions, which give masks: nothing waits for a GPU."""

import torch
from torch import Tensor

from la_det.structures import Pairs, Priors, Targets


def best_in_group(group: Tensor, value: Tensor, num_groups: int, among: Tensor | None = None) -> Tensor:
    """Which pair has the largest value of its group; ties go to the first pair.

    Args:
        group: [P] int64, 0..num_groups-1.
        value: [P] float, no NaN.
        num_groups: upper bound of the number of groups.
        among: [P] bool, the pairs that compete; all by default.

    Returns:
        [P] bool, True for one pair of each group that has pairs.
    """
    if among is not None:
        value = value.masked_fill(~among, -torch.inf)
    best = value.new_full((num_groups,), -torch.inf).scatter_reduce_(0, group, value, "amax")
    is_best = value == best[group]
    if among is not None:
        is_best &= among
    order = torch.arange(len(group), device=group.device)
    first = group.new_full((num_groups,), len(group)).scatter_reduce_(
        0, group, order.masked_fill(~is_best, len(group)), "amin"
    )
    return first[group] == order


def rank_in_group(group: Tensor, value: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """The pairs by descending value in each group; of equal pairs the first one comes first.

    Args:
        group: [P] int64, 0..num_groups-1.
        value: [P] float32; NaN counts as infinite, so that it is noticed.
        num_groups: upper bound of the number of groups.

    Returns:
        [P] int64 each: indices of the pairs, ascending by group, then descending by value; and the rank of each pair
        in its group, from 0.
    """
    value = value.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    bits = value.add_(0.0).view(torch.int32).to(torch.int64)  # -0.0 becomes 0.0, so that both tie
    ascending = bits.bitwise_xor_((bits >> 32).bitwise_and_(0x7FFFFFFF))  # integers in the order of the floats
    order = (group << 32).sub_(ascending).argsort(stable=True)
    group = group[order]
    first = torch.searchsorted(group, torch.arange(num_groups, device=group.device))
    return order, torch.arange(len(group), device=group.device).sub_(first[group])


def topk_in_group(group: Tensor, value: Tensor, num_groups: int, k: int) -> Tensor:
    """Which pairs are among the k largest values of their group, as `rank_in_group` orders them: [P] bool."""
    order, rank = rank_in_group(group, value, num_groups)
    return torch.zeros_like(group, dtype=torch.bool).index_copy_(0, order, rank < k)


def best_per_prior(pairs: Pairs, value: Tensor, priors: Priors, num_images: int, among: Tensor | None = None) -> Tensor:
    """Which pair has the largest value of its location, ties to the first: [P] bool; `among` as in `best_in_group`."""
    return best_in_group(pairs.location(len(priors)), value, num_images * len(priors), among)


def contested(pairs: Pairs, taken: Tensor, priors: Priors, num_images: int) -> Tensor:
    """Which pairs have a location that several of the taken pairs [P] bool have: [P] bool."""
    location = pairs.location(len(priors))
    takers = location.new_zeros(num_images * len(priors)).index_add_(0, location, taken.long())
    return takers.index_select(0, location) > 1


def best_of_each(pairs: Pairs, value: Tensor, priors: Priors, targets: Targets, among: Tensor | None = None) -> Pairs:
    """Each ground truth's best pair; if several ground truths choose one location, only the best pair stays.

    Ties go to the first pair. Unlike in exact matching, a ground truth that loses its location gets no other location.
    NaN is the largest value, so that it is noticed in the losses. `among` as in `best_in_group`.
    """
    value = value.nan_to_num(nan=torch.inf)
    best = best_in_group(pairs.gt, value, len(targets), among)
    return pairs[best_per_prior(pairs, value, priors, targets.num_images, among=best)]


def last_of_class(pairs: Pairs, targets: Targets, num_priors: int, num_classes: int) -> Tensor:
    """[P] bool, whether the pair's ground truth is the last one of its class that is paired with the location.

    The official code overwrites weights in this order on a CPU; on a GPU chance decides.

    Args:
        pairs: (location, ground truth).
        targets: the batch's ground truths.
        num_priors: R.
        num_classes: K.
    """
    # One row of locations for each (image, class) that has ground truths.
    rows, _, row = targets.kinds(num_classes)
    entry, gt = row[pairs.gt] * num_priors + pairs.prior, pairs.gt.int()
    last = gt.new_zeros(len(rows) * num_priors).scatter_reduce_(0, entry, gt, "amax")
    return last[entry] == gt
