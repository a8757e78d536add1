"""Exact matching where each ground truth gets several locations, and every location is its candidate (DDQ).

The official implementation repeats the ground truths and solves the dense problem with SciPy. Here a sparse problem
gives a good matching, and exchanges between ground truths make it optimal. With w[b, a] the least change of cost when a
location goes from b to a, a matching is optimal if, and only if, no cycle of exchanges has a negative sum (Klein,
Management Science 1967). So the last step sees a matrix of ground truths alone.
"""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array, eye_array, hstack
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from torch import Tensor

from la_det.steps.select.linear_assignment import finite
from la_det.structures import Targets, move

SMOOTHING, ROUNDS, RELAXATION = 0.3, 20, 1.6  # of the soft matching, which chooses columns for the sparse problem
LEAST_SHARE = 0.04  # of the largest one
LARGEST_SCALE = np.float32(1e30)  # of the shares of a row
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
            mine = np.sort(_solve(finite(here[:, columns].astype(np.float64)), k), 1)
            matches.append(np.stack([np.arange(start, start + count).repeat(k), columns[mine.ravel()]]))
        start += count
    fields = np.concatenate([np.empty((2, 0), np.int64), *matches], 1)
    return move(torch.from_numpy(fields), cost.device).unbind()


def _solve(cost: np.ndarray, k: int) -> np.ndarray:
    """The columns of each row [rows, k], from costs [rows, columns]."""
    if k == 1:  # without copies, the dense problem is the faster one
        return linear_sum_assignment(cost)[1][:, None]
    rows = np.arange(len(cost))
    mine = _sparse_matching(cost, k)
    columns = [*mine, np.setdiff1d(np.arange(cost.shape[1]), mine)]  # of each row; the last row keeps what is free
    change = np.full((len(cost) + 1, len(cost) + 1), np.inf)
    change[:-1, :-1] = (cost[:, mine] - cost[rows[:, None], mine]).min(-1).T
    change[:-1, -1] = -cost[rows[:, None], mine].max(-1)
    change[-1, :-1] = cost[:, columns[-1]].min(1, initial=np.inf)
    np.fill_diagonal(change, np.inf)
    cost = np.vstack([cost, np.zeros_like(cost[:1])])
    while cycles := _negative_cycles(change):
        for cycle in cycles:  # they have no row in common
            takers = cycle[1:] + cycle[:1]
            places = [(cost[b, columns[a]] - cost[a, columns[a]]).argmin() for a, b in zip(cycle, takers, strict=True)]
            moved = [columns[row][place] for row, place in zip(cycle, places, strict=True)]
            for taker, place, column in zip(takers, places[1:] + places[:1], moved, strict=True):
                columns[taker][place] = column
            for row in cycle:
                change[row] = (cost[:, columns[row]] - cost[row, columns[row]]).min(1, initial=np.inf)
                change[row, row] = np.inf
    return np.stack(columns[:-1])


def _sparse_matching(cost: np.ndarray, k: int) -> np.ndarray:
    """The columns of each row [rows, k] in a matching that is near to the best one: rows list a part of the columns."""
    num_rows, num_columns = cost.shape
    row, column = np.nonzero(_listed(cost, k))
    listed = csr_array((cost[row, column] - cost.min() + 1, (row, column)), cost.shape)  # 0 is no edge
    # Each copy has a column of its own, in case that others take all it lists.
    last = (num_rows * k + 1) * (np.ptp(cost) + 1) * eye_array(num_rows * k)
    graph = hstack([listed[np.arange(num_rows).repeat(k)], last], format="csr")
    columns = min_weight_full_bipartite_matching(graph)[1]
    without = columns >= num_columns
    columns[without] = np.setdiff1d(np.arange(num_columns), columns)[: without.sum()]
    return columns.reshape(num_rows, k)


def _listed(cost: np.ndarray, k: int) -> np.ndarray:
    """[rows, columns] bool, those that the rows share in a soft matching, by Sinkhorn's algorithm, over-relaxed.

    A row has k columns, and the other columns are free, at cost 0.
    """
    num_rows, num_columns = cost.shape
    least = cost.min(0).clip(max=0)
    share = np.exp((least - cost) / SMOOTHING, dtype=np.float32)
    free = np.exp(least / SMOOTHING, dtype=np.float32)
    scale, free_scale, tiny = np.ones(num_rows, np.float32), np.float32(1), np.float32(1e-30)
    num_free = num_columns - num_rows * k
    for _ in range(ROUNDS):  # einsum has no threads, whereas those of a product would fight with torch's
        column = 1 / (np.einsum("r,rc->c", scale, share) + free_scale * free + tiny)
        with np.errstate(over="ignore"):  # where nothing is near, the scale grows and grows
            grown = scale * (k / (scale * np.einsum("rc,c->r", share, column) + tiny)) ** RELAXATION
            free_scale *= (num_free / (free_scale * np.einsum("c,c->", free, column) + tiny)) ** RELAXATION
        scale, free_scale = np.minimum(grown, LARGEST_SCALE), np.minimum(free_scale, LARGEST_SCALE)
    share *= scale[:, None]
    return share >= LEAST_SHARE * np.maximum(share.max(0), free_scale * free)


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
