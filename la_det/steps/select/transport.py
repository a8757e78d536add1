"""Entropic optimal transport by Sinkhorn's algorithm (Cuturi, NeurIPS 2013), on the entries that can matter."""

from dataclasses import dataclass

import torch
from torch import Tensor

from la_det.structures import true_indices

# Natural logarithm of a share, 1e-60, below which an entry takes part in no further iteration. To matter after that, it
# would have to grow beside its row's largest entry by 50 orders of magnitude.
NEGLIGIBLE = -138.0


@dataclass(frozen=True)
class Transport:
    """An optimal transport problem on a sparse matrix, of a whole batch.

    Each row supplies units, each column wants one. A column with a single entry, such as a location that only the
    background has a say in, stays with that row whatever it costs: such columns are not listed but counted.

    Attributes:
        row, column, cost: [E] of each entry.
        supply: [rows] units of each row, positive.
        free: [rows] how many columns have an entry in this row alone.
        num_columns: of the others, each of which has an entry.
    """

    row: Tensor
    column: Tensor
    cost: Tensor
    supply: Tensor
    free: Tensor
    num_columns: int

    def shares(self, eps: float, iterations: int) -> tuple[Tensor, Tensor]:
        """The plan after so many iterations, in shares of each row's largest value.

        An iteration scales each column to the sum 1, then each row to its supply.

        Args:
            eps: strength of the regularisation, in units of the cost.
            iterations: at least 1.

        Returns:
            [E] of the entries, and [rows] of the columns that are not listed. Computed in double precision, they are
            rounded to single: so equal rows stay equal, in whatever order a GPU adds.
        """
        row, column, supply = self.row, self.column, self.supply.double()
        free, wanted = self.free.double(), supply.new_zeros(self.num_columns)
        # In logarithms at first. After one scaling of columns and rows, no sum is below 1e-8 / R any more.
        log = self.cost.double() / -eps
        log = log - torch.full_like(wanted, -torch.inf).scatter_reduce_(0, column, log, "amax").index_select(0, column)
        log = log - wanted.index_add(0, column, log.exp()).log_().index_select(0, column)
        log = log - free.log().clamp_(max=0).scatter_reduce_(0, row, log, "amax").index_select(0, row)
        (listed,) = true_indices(~(log < NEGLIGIBLE))  # host synchronisation: how many there are
        row, column = row.index_select(0, listed), column.index_select(0, listed)
        plan = log.index_select(0, listed).exp_()
        for i in range(iterations):
            if i:
                plan = plan.div_(wanted.index_add(0, column, plan).index_select(0, column))
            scale = supply / free.index_add(0, row, plan)
            plan = plan.mul_(scale.index_select(0, row))
        alone = scale.masked_fill(free == 0, 0)
        largest = alone.scatter_reduce(0, row, plan, "amax")
        share = torch.zeros_like(log).index_copy_(0, listed, plan / largest.index_select(0, row))
        return share.float(), (alone / largest).float()
