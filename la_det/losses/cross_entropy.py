"""Binary cross entropy of probabilities. Like PyTorch's, it counts no logarithm as less than -100."""

import torch
from torch import Tensor

from la_det.structures import DensePredictions, Score

LOWEST_LOG = -100.0


def cross_entropy_entries(p: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of entries of any shape as positives and as background: -ln p and -ln(1 - p)."""
    return -p.log().clamp_(min=LOWEST_LOG), -torch.log1p(-p).clamp_(min=LOWEST_LOG)


def background_cross_entropy(predictions: DensePredictions, score: Score) -> Tensor:
    """[N, R] sum over the classes of each location as background; for branches with one prior per cell."""
    rows = []
    for level in range(len(predictions.priors.grid_sizes)):
        p = score.dense(predictions, level).squeeze(1)
        rows.append(p.neg_().log1p_().clamp_(min=LOWEST_LOG).sum(1).flatten(1))
    return -torch.cat(rows, 1)
