"""Exact matching where each ground truth gets several locations, and every location is its candidate (DDQ).

The official implementation repeats the ground truths and solves the dense problem with SciPy. Here a sparse problem
gives a good matching, and exchanges between ground truths make it optimal. With w[b, a] the least change of cost when a
location goes from b to a, a matching is optimal if, and only if, no cycle of exchanges has a negative sum (Klein,
Management Science 1967). So the last step sees a matrix of ground truths alone.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from torch import Tensor

from la_det.steps.select.linear_assignment import finite
from la_det.structures import Targets, move

LISTED = 64  # columns of each row in the sparse problem
SMOOTHING, ROUNDS = 0.3, 60  # of the prices, which only choose these columns
TOLERANCE = 1e-9  # of sums of costs


def match_copies(cost: Tensor, targets: Targets, most: int) -> tuple[Tensor, Tensor]:
    """Gives each ground truth k columns of its own, minimising the sum of costs.

    k is the same for all ground truths of an image: `most`, or as many as there are for each one.

    Args:
        cost: [G, Q] of each column; infinite where the ground truth's image has no such column.
        targets: the batch's ground truths.
        most: largest k.

    Returns:
        Ground truth [P], ascending, and column [P] of each match.

    Raises:
        FloatingPointError: a cost is NaN, or infinitely small.
    """
    cost_np, start, matches = cost.cpu().numpy(), 0, []  # host synchronisation, the only one
    for count in targets.counts:
        here = cost_np[start : start + count]
        columns = np.flatnonzero((here != np.inf).any(0))
        k = min(most, len(columns) // max(count, 1))
        if k:
            owner = _solve(finite(here[:, columns].astype(np.float64)), k)
            chosen = np.flatnonzero(owner < count)
            chosen = chosen[owner[chosen].argsort(kind="stable")]
            matches.append(np.stack([owner[chosen] + start, columns[chosen]]))
        start += count
    fields = np.concatenate([np.empty((2, 0), np.int64), *matches], 1)
    return move(torch.from_numpy(fields), cost.device).unbind()


def _solve(cost: np.ndarray, k: int) -> np.ndarray:
    """The row of each column, or the number of rows for a column that stays free, from costs [rows, columns]."""
    if k == 1:  # without copies, the dense problem is the faster one
        row, column = linear_sum_assignment(cost)
        owner = np.full(cost.shape[1], len(cost))
        owner[column] = row
        return owner
    owner = _sparse_matching(cost, k)
    cost = np.vstack([cost, np.zeros_like(cost[:1])])  # the last row keeps what is free
    change = np.full((len(cost), len(cost)), np.inf)
    changed: Sequence[int] = range(len(cost))
    while True:
        for row in changed:
            mine = np.flatnonzero(owner == row)
            change[row] = (cost[:, mine] - cost[row, mine]).min(1, initial=np.inf)
            change[row, row] = np.inf
        cycles = _negative_cycles(change)
        if not cycles:
            return owner
        for cycle in cycles:  # they have no row in common
            columns = []
            for row, taker in zip(cycle, cycle[1:] + cycle[:1], strict=True):
                mine = np.flatnonzero(owner == row)
                columns.append(mine[(cost[taker, mine] - cost[row, mine]).argmin()])
            owner[columns] = cycle[1:] + cycle[:1]
        changed = sum(cycles, [])


def _sparse_matching(cost: np.ndarray, k: int) -> np.ndarray:
    """A matching that is near to the best one: k copies of each row, which list few columns."""
    (num_rows, num_columns), number = cost.shape, min(LISTED, cost.shape[1])
    reduced = cost - _prices(cost, k)[:, None]
    listed = np.argpartition(reduced - reduced.min(0).clip(max=0), number - 1, 1)[:, :number]
    own = np.arange(num_rows * k)  # each copy has a column of its own in case that others take all it lists
    indices = np.concatenate([listed.repeat(k, 0), num_columns + own[:, None]], 1)
    values = np.take_along_axis(cost, listed, 1) - cost.min() + 1  # 0 is no edge
    last = np.full((len(own), 1), (len(own) + 1) * (np.ptp(cost) + 1))
    values = np.concatenate([values.repeat(k, 0), last], 1)
    ends = np.arange(len(own) + 1) * (number + 1)
    graph = csr_array((values.ravel(), indices.ravel(), ends), shape=(len(own), num_columns + len(own)))
    rows, columns = min_weight_full_bipartite_matching(graph)
    owner, found = np.full(num_columns, num_rows), columns < num_columns
    owner[columns[found]] = rows[found] // k
    rest = rows[~found] // k
    owner[np.flatnonzero(owner == num_rows)[: len(rest)]] = rest
    return owner


def _prices(cost: np.ndarray, k: int) -> np.ndarray:
    """What a column is worth to each row [rows], about: Sinkhorn's algorithm with k columns per row."""
    num_rows, num_columns = cost.shape
    least = cost.min(0).clip(max=0)  # a column may stay free, at cost 0
    kernel = np.exp((least - cost) / SMOOTHING).astype(np.float32)
    free = np.exp(least / SMOOTHING).astype(np.float32)
    scale, free_scale, tiny = np.ones(num_rows, np.float32), np.float32(1), np.float32(1e-30)
    for _ in range(ROUNDS):  # einsum has no threads, whereas those of a product would fight with torch's
        column = 1 / (np.einsum("r,rc->c", scale, kernel) + free_scale * free + tiny)
        scale = k / (np.einsum("rc,c->r", kernel, column) + tiny)
        free_scale = (num_columns - num_rows * k) / (np.einsum("c,c->", free, column) + tiny)
    prices = SMOOTHING * (np.log(scale + tiny) - np.log(free_scale + tiny))
    return np.nan_to_num(prices, nan=0.0, posinf=0.0, neginf=0.0)


def _negative_cycles(change: np.ndarray) -> list[list[int]]:
    """Cycles of negative sum without a common row, by Bellman and Ford's algorithm; none if there are none at all.

    Args:
        change: [rows, rows] of a step from one row to another.
    """
    every = np.arange(len(change))
    distance, before = np.zeros(len(change)), np.full(len(change), -1)
    for step in range(1, len(change) + 2):
        through = distance[:, None] + change
        nearest = through.argmin(0)
        better = through[nearest, every] < distance - TOLERANCE
        if not better.any():
            return []
        before[better], distance = nearest[better], np.where(better, through[nearest, every], distance)
        if step % 3 == 0 and (cycles := _cycles(before.tolist())):
            return cycles
    return []


def _cycles(before: list[int]) -> list[list[int]]:
    """Those in a graph where each node has at most one predecessor, -1 for none; in the order of the steps."""
    seen, cycles = [-1] * len(before), []
    for first in range(len(before)):
        node = first
        while node >= 0 and seen[node] < 0:
            seen[node], node = first, before[node]
        if node >= 0 and seen[node] == first:  # a new cycle
            cycle = [node]
            while before[cycle[-1]] != node:
                cycle.append(before[cycle[-1]])
            cycles.append(cycle[::-1])
    return cycles
