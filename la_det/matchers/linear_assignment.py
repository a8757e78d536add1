"""Exact one-to-one matching of ground truths to locations, on the candidates only.

The official implementations solve the dense [G, R] problem of an image, with one constant wherever a location is no
candidate. An optimum needs at most the best G candidates of each row, because the other rows can occupy only G - 1 of
them; a row without a free candidate takes some column of the constant, and SciPy's search finds that one among the G
lowest columns. So the dense answer, including the location an unmatched ground truth ends at, is that of the reduced
problem on the union of both sets of columns in ascending order.

Far fewer candidates do unless values are equal: as many of a row as there are rows that share a candidate with it,
itself included. Equal values leave a choice, and which one SciPy makes depends on the columns it sees.
"""

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from torch import Tensor

from la_det.matchers.selection import best_of_groups
from la_det.structures import Pairs, Targets, move, on_device


def match(
    pairs: Pairs, value: Tensor, targets: Targets, num_priors: int, *, missing: float, drop_missing: bool = False
) -> Pairs:
    """Matches each ground truth to one location of its image, maximising the sum of values.

    Args:
        pairs: candidates, ordered by ground truth, then prior.
        value: [P] value of each pair.
        targets: the batch's ground truths.
        num_priors: R.
        missing: value of every (location, ground truth) that is no candidate, less than that of any candidate.
        drop_missing: leave out ground truths that got no candidate, instead of an arbitrary location.

    Returns:
        One pair per ground truth, ordered by ground truth; min(R, g) for an image with g > R ground truths.

    Raises:
        FloatingPointError: a value is NaN, or one that may be chosen is infinite.
    """
    limit = on_device(targets.counts, value.device)[targets.image]
    kept, _ = best_of_groups(pairs.gt, value, limit)

    def solve(row: np.ndarray, column: np.ndarray, value: np.ndarray, gts: slice) -> tuple[np.ndarray, np.ndarray]:
        return _solve(row, column, value, gts.stop - gts.start, num_priors, missing, drop_missing)

    return _solve_images(pairs[kept], value[kept], targets, solve)


def match_listed(pairs: Pairs, value: Tensor, rest: Tensor, targets: Targets) -> tuple[Pairs, Tensor]:
    """Matches each ground truth to one location of its image where every location is a candidate but few are listed.

    Each ground truth gets a column of its own that stands for all it does not list. No assignment of the whole problem
    has a larger sum than the optimum of this one, so an optimum that needs none of these columns solves both.

    Args:
        pairs: some of the candidates, ordered by ground truth.
        value: [P] value of each of them.
        rest: [G] what the values of the ground truth's other candidates do not exceed; -inf if it has none.
        targets: the batch's ground truths.

    Returns:
        At most one pair per ground truth, ordered by ground truth, and [G] bool: those that may find something better
        among the candidates they do not list. If there are none, the pairs are an optimum of the whole problem.

    Raises:
        FloatingPointError: a value is NaN, or one that may be chosen is infinite.
    """
    rest_np = rest.double().cpu().numpy()  # host synchronisation

    def solve(row: np.ndarray, column: np.ndarray, value: np.ndarray, gts: slice) -> tuple[np.ndarray, np.ndarray]:
        return _solve_listed(row, column, value, rest_np[gts])

    matched = _solve_images(pairs, value, targets, solve)
    return matched, (rest > -torch.inf).index_fill(0, matched.gt, False)


def _solve_images(pairs: Pairs, value: Tensor, targets: Targets, solve: Callable) -> Pairs:
    """What `solve` matches in each image, given its listed rows (ground truths), columns (locations) and values."""
    # Host synchronisation, the only one of candidates; float64 holds indices and float32 values exactly.
    columns = torch.stack([pairs.gt.double(), pairs.prior.double(), value.double()]).cpu().numpy()
    gt, prior, value_np = columns[0].astype(np.int64), columns[1].astype(np.int64), columns[2]
    if not np.isfinite(value_np).all():
        raise FloatingPointError(
            "NaN or infinite matching values: the predictions diverged (look at the learning rate and the inputs)"
        )
    matched_gt, matched_prior, image = [], [], []
    start = 0
    for i, count in enumerate(targets.counts):
        here = slice(*np.searchsorted(gt, [start, start + count]))
        rows, cols = solve(gt[here] - start, prior[here], value_np[here], slice(start, start + count))
        matched_gt.append(rows + start)
        matched_prior.append(cols)
        image.append(np.full(len(rows), i))
        start += count
    fields = torch.from_numpy(np.stack([np.concatenate(x) for x in (image, matched_prior, matched_gt)]))
    return Pairs(*move(fields, pairs.gt.device))


def _solve(
    row: np.ndarray,
    column: np.ndarray,
    value: np.ndarray,
    num_rows: int,
    num_columns: int,
    missing: float,
    drop_missing: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """One image, each row's candidates by descending value: (matched rows ascending, their columns)."""
    starts = np.searchsorted(row, np.arange(num_rows + 1))
    rank = np.arange(len(row)) - starts[row]
    candidates = csr_array((np.ones(len(row), np.int32), column, starts), shape=(num_rows, num_columns))
    rivals = np.diff((candidates @ candidates.T).indptr)  # rows that share a candidate with each row
    few = rank < rivals[row]
    equal = (row[1:] == row[:-1]) & (value[1:] == value[:-1]) & few[:-1]  # also to the first that would be left out
    best = value[rank == 0]
    if num_rows > num_columns or equal.any() or len(np.unique(best)) < len(best):
        few[:] = True
    rows, columns, found = _solve_dense(row[few], column[few], value[few], num_rows, num_columns, missing)
    return (rows[found], columns[found]) if drop_missing else (rows, columns)


def _solve_dense(
    row: np.ndarray, column: np.ndarray, value: np.ndarray, num_rows: int, num_columns: int, missing: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matched rows ascending, their columns, and whether those are candidates."""
    used = np.zeros(num_columns, dtype=bool)
    used[: min(num_rows, num_columns)] = True
    used[column] = True
    columns = np.flatnonzero(used)
    dense = np.full((num_rows, len(columns)), missing)
    dense[row, (used.cumsum() - 1)[column]] = value
    rows, cols = linear_sum_assignment(dense, maximize=True)
    return rows, columns[cols], dense[rows, cols] > missing


def _solve_listed(
    row: np.ndarray, column: np.ndarray, value: np.ndarray, rest: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One image: (matched rows ascending, their columns)."""
    num_rows = len(rest)
    if num_rows == 0:
        return row, column
    columns, reduced = np.unique(column, return_inverse=True)
    # A row that has no other candidates stays unmatched only if it must: at a price that nothing else makes up for.
    finite = np.concatenate([value, rest[np.isfinite(rest)]])
    lowest = finite.min() - (num_rows + 1) * (np.ptp(finite) + 1)
    every_row = np.arange(num_rows)
    weights = np.concatenate([value, np.where(np.isfinite(rest), rest, lowest)]) - finite.max() - 1  # 0 is no edge
    indices = np.concatenate([row, every_row]), np.concatenate([reduced, len(columns) + every_row])
    graph = csr_array((weights, indices), shape=(num_rows, len(columns) + num_rows))
    rows, cols = min_weight_full_bipartite_matching(graph, maximize=True)
    listed = cols < len(columns)
    return rows[listed], columns[cols[listed]]
