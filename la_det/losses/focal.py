"""The focal loss of single entries (Lin et al., ICCV 2017, eq. 5; gamma = 2)."""

import torch
from torch import Tensor

from la_det.structures import Score


def focal_entries(score: Score, c: Tensor, f: Tensor | None, alpha: float) -> tuple[Tensor, Tensor]:
    """Focal loss of entries, once as positives and once as background, in a form that is stable for all logits.

    Args:
        score: what p is.
        c: class logits, any shape.
        f: gate logits that broadcast to it; None without a gate.
        alpha: weight of positives; background weighs 1 - alpha.

    Returns:
        -alpha (1 - p)^2 ln p, and -(1 - alpha) p^2 ln(1 - p), both of the shape of c.
    """
    logs = torch.stack(score.logs(c, f))
    entries = (2 * logs.flip(0)).exp() * logs
    return -alpha * entries[0], (alpha - 1) * entries[1]
