"""Exact one-to-one matching of ground truths to locations, on the candidates only.

The official implementations solve the dense [G, R] problem of an image with SciPy; every location that is no candidate
has the same constant value. `Search` is SciPy's algorithm, shortest augmenting paths (Crouse, IEEE Transactions on
Aerospace and Electronic Systems 2016), with the same arithmetic and the same choice among equal values. But it looks
only at the candidates that can matter. Its answer is SciPy's, also if several matchings are optimal or a ground truth
has no free candidate. Most ground truths take their best candidate at once: the cost grows with the number of them.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from torch import Tensor

from la_det.structures import Pairs, Targets, move


def match(
    pairs: Pairs,
    value: Tensor,
    targets: Targets,
    num_priors: int,
    *,
    missing: float,
    drop_missing: bool = False,
    among: Tensor | None = None,
) -> Pairs:
    """Matches each ground truth to one location of its image, maximising the sum of values.

    Args:
        pairs: candidates, ordered by ground truth, then prior.
        value: [P] value of each pair.
        targets: the batch's ground truths.
        num_priors: R.
        missing: value of every (location, ground truth) that is no candidate; a lower bound of the candidates' values.
        drop_missing: what a ground truth without a free candidate gets.
            False: an arbitrary location.
            True: no location.
        among: [P] bool, which pairs are candidates; all by default.

    Returns:
        One pair per ground truth, ordered by ground truth. An image with more than R ground truths has R pairs. With
        `drop_missing`, a ground truth without a free candidate has none.

    Raises:
        FloatingPointError: a value is NaN or infinite.
    """

    def solve(row: np.ndarray, column: np.ndarray, value: np.ndarray, gts: slice) -> tuple[np.ndarray, np.ndarray]:
        num_rows = gts.stop - gts.start
        if num_rows > num_priors:
            rows, columns = _solve_dense(row, column, value, num_rows, num_priors, missing)
        else:
            columns = Search(row, column, -value, num_rows, num_priors, -missing).solve()
            rows = np.arange(num_rows)
        if not drop_missing:
            return rows, columns
        found = np.isin(rows * num_priors + columns, (row * num_priors + column)[value > missing])
        return rows[found], columns[found]

    return _solve_images(pairs, value, targets, solve, among)


def match_listed(pairs: Pairs, value: Tensor, rest: Tensor, targets: Targets) -> tuple[Pairs, Tensor]:
    """Matches each ground truth to one location of its image, when every location is a candidate but few are listed.

    Each ground truth gets one extra column, which stands for all candidates that are not listed. The optimum of this
    problem is an upper bound for the whole problem. So an optimum without extra columns solves the whole problem.

    Args:
        pairs: the listed candidates, ordered by ground truth.
        value: [P] value of each listed candidate.
        rest: [G] upper bound of the values of the ground truth's other candidates; -inf if there are none.
        targets: the batch's ground truths.

    Returns:
        At most one pair per ground truth, ordered by ground truth; and [G] bool, whether a candidate that is not listed
        may be better for the ground truth. If that is never so, the pairs are an optimum of the whole problem.

    Raises:
        FloatingPointError: a value is NaN or infinite.
    """
    rest_np = rest.double().cpu().numpy()  # host synchronisation

    def solve(row: np.ndarray, column: np.ndarray, value: np.ndarray, gts: slice) -> tuple[np.ndarray, np.ndarray]:
        return _solve_listed(row, column, value, rest_np[gts])

    matched = _solve_images(pairs, value, targets, solve)
    return matched, (rest > -torch.inf).index_fill(0, matched.gt, False)


def finite(value: np.ndarray) -> np.ndarray:
    """The same values, of any shape.

    Raises:
        FloatingPointError: one of them is NaN or infinite.
    """
    if not np.isfinite(value).all():
        raise FloatingPointError(
            "NaN or infinite matching values: the predictions diverged (look at the learning rate and the inputs)"
        )
    return value


def _solve_images(pairs: Pairs, value: Tensor, targets: Targets, solve: Callable, among: Tensor | None = None) -> Pairs:
    """The pairs that `solve` matches in each image, from rows (ground truths), columns (locations) and values."""
    # The only host synchronisation for the candidates.
    gt = pairs.gt if among is None else pairs.gt.masked_fill(~among, -1)
    columns = torch.stack([gt.int(), pairs.prior.int(), value.float().view(torch.int32)]).cpu().numpy()
    columns = columns[:, columns[0] >= 0]
    gt, prior = columns[:2].astype(np.int64)
    value_np = finite(columns[2].view(np.float32).astype(np.float64))
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


class Search:
    """The columns of least total cost for the rows of one image, as from `scipy.optimize.linear_sum_assignment`.

    SciPy inserts row by row, each along the cheapest path of changes: the row takes a column, the row that had this
    column takes another column, up to a free column. `u` and `v` are the dual variables of rows and columns; a free
    column has v = 0. SciPy lists the columns that no path has reached. The order of this list decides between equal
    columns: it is descending at first, and when a column is reached, the last column of the list takes its place.
    """

    def __init__(
        self, row: np.ndarray, column: np.ndarray, cost: np.ndarray, num_rows: int, num_columns: int, missing: float
    ):
        """
        Args:
            row, column, cost: [P] of the candidates, ordered by row, then column.
            num_rows, num_columns: numbers of rows and columns; at most as many rows as columns.
            missing: cost of every pair that is no candidate; an upper bound of the candidates' costs.
        """
        self.column, self.cost, self.num_columns, self.missing = column, cost, num_columns, missing
        self.starts = np.searchsorted(row, np.arange(num_rows + 1))
        self.sorted_rows: dict[int, list[tuple[float, int]]] = {}
        self.u = [0.0] * num_rows
        self.v: dict[int, float] = {}
        self.column_of = [-1] * num_rows
        self.row_of: dict[int, int] = {}
        self.taken = 0  # the columns before this one are not free

    def solve(self) -> np.ndarray:
        """[rows] the column of each row."""
        for row, (column, cost) in enumerate(zip(*self._best(), strict=True)):
            if column < 0 or column in self.row_of:
                self._insert(row)
            else:  # a path of one step
                self.row_of[column], self.column_of[row], self.u[row] = row, column, cost
        return np.array(self.column_of, dtype=np.int64)

    def _best(self) -> tuple[list[int], list[float]]:
        """Column and cost of each row's cheapest candidate; column -1 if no candidate is cheaper than all else."""
        num_rows = len(self.u)
        cost = np.full(num_rows, self.missing)
        column = np.full(num_rows, -1)
        filled = np.flatnonzero(self.starts[1:] > self.starts[:-1])
        if len(filled):
            cost[filled] = np.minimum.reduceat(self.cost, self.starts[filled])
            row = np.repeat(np.arange(num_rows), np.diff(self.starts))
            cheapest = np.flatnonzero(self.cost == cost[row])
            column[row[cheapest]] = self.column[cheapest]
            column[(np.bincount(row[cheapest], minlength=num_rows) > 1) | (cost == self.missing)] = -1
        return column.tolist(), cost.tolist()

    def _candidates(self, row: int) -> list[tuple[float, int]]:
        """(cost, column) of a row's candidates, ascending."""
        if row not in self.sorted_rows:
            here = slice(self.starts[row], self.starts[row + 1])
            order = self.cost[here].argsort(kind="stable")
            costs, columns = self.cost[here][order].tolist(), self.column[here][order].tolist()
            self.sorted_rows[row] = list(zip(costs, columns, strict=True))
        return self.sorted_rows[row]

    def _insert(self, new: int) -> None:
        """Finds the cheapest path from a new row to a free column, and changes the matching along it."""
        row_of, v = self.row_of, self.v
        order = _Order(self.num_columns)
        rows = []  # rows on the paths; a step is an index of this list
        length: dict[int, float] = {}  # length of the shortest path to each column that is seen, but not reached
        step: dict[int, int] = {}  # step of the last row of this path
        reached: dict[int, float] = {}  # columns whose shortest path is known, and its length
        to_missing, missing_step = math.inf, 0  # the same for any free column that is no candidate
        shortest, to_free = 0.0, math.inf  # a path that is longer than one to a free column does not matter
        row = new
        while True:
            rows.append(row)
            u = self.u[row]
            if shortest + self.missing - u < to_missing:
                to_missing, missing_step = shortest + self.missing - u, len(rows) - 1
                to_free = min(to_free, to_missing)
            for cost, column in self._candidates(row):
                bound = shortest + cost - u  # v is not positive
                if bound > to_free:
                    break
                through = bound - v.get(column, 0.0)
                if column not in reached and through < length.get(column, math.inf):
                    length[column], step[column] = through, len(rows) - 1
                    if column not in row_of:
                        to_free = min(to_free, through)
            shortest = min(length.values(), default=math.inf)
            if to_missing <= shortest:  # all free columns are that far
                shortest, sink = to_missing, self._last_free(order)
                last = min(missing_step, step[sink]) if length.get(sink) == shortest else missing_step
                break
            nearest = [column for column, x in length.items() if x == shortest]
            free = [column for column in nearest if column not in row_of]
            if free:
                sink = max(free, key=order.index)
                last = step[sink]
                break
            column = min(nearest, key=order.index)
            reached[column] = length.pop(column)
            order.remove(column)
            row = row_of[column]

        self.u[new] += shortest
        for row in rows[1:]:
            self.u[row] += shortest - reached[self.column_of[row]]
        for column, x in reached.items():
            v[column] = v.get(column, 0.0) - (shortest - x)
        column = sink
        while True:
            row = rows[last]
            row_of[column] = row
            column, self.column_of[row] = self.column_of[row], column
            if row == new:
                return
            last = step[column]

    def _last_free(self, order: "_Order") -> int:
        while self.taken in self.row_of:
            self.taken += 1
        last = order.length - 1 if order.moved else order.index(self.taken)
        return next(order[i] for i in range(last, -1, -1) if order[i] not in self.row_of)


class _Order:
    """The list number - 1, ..., 0. When an element is removed, the last element takes its place."""

    def __init__(self, number: int):
        self.number = self.length = number
        self.moved: dict[int, int] = {}  # index -> element
        self.indices: dict[int, int] = {}  # element -> index

    def __getitem__(self, index: int) -> int:
        return self.moved.get(index, self.number - 1 - index)

    def index(self, element: int) -> int:
        return self.indices.get(element, self.number - 1 - element)

    def remove(self, element: int) -> None:
        self.length -= 1
        index, last = self.index(element), self[self.length]
        self.moved[index], self.indices[last] = last, index


def _solve_dense(
    row: np.ndarray, column: np.ndarray, value: np.ndarray, num_rows: int, num_columns: int, missing: float
) -> tuple[np.ndarray, np.ndarray]:
    """Matched rows, ascending, and their columns, by SciPy on the dense matrix."""
    dense = np.full((num_rows, num_columns), missing)
    dense[row, column] = value
    return linear_sum_assignment(dense, maximize=True)


def _solve_listed(
    row: np.ndarray, column: np.ndarray, value: np.ndarray, rest: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One image: (matched rows ascending, their columns)."""
    num_rows = len(rest)
    if num_rows == 0:
        return row, column
    columns, reduced = np.unique(column, return_inverse=True)
    # A row without other candidates stays unmatched only if it must: `lowest` costs more than all other rows can gain.
    finite = np.concatenate([value, rest[np.isfinite(rest)]])
    lowest = finite.min() - (num_rows + 1) * (np.ptp(finite) + 1)
    every_row = np.arange(num_rows)
    weights = np.concatenate([value, np.where(np.isfinite(rest), rest, lowest)]) - finite.max() - 1  # 0 is no edge
    indices = np.concatenate([row, every_row]), np.concatenate([reduced, len(columns) + every_row])
    graph = csr_array((weights, indices), shape=(num_rows, len(columns) + num_rows))
    rows, cols = min_weight_full_bipartite_matching(graph, maximize=True)
    listed = cols < len(columns)
    return rows[listed], columns[cols[listed]]
