"""ATSS's adaptive threshold (CVPR 2020, section 3.2), which other schemes use on other qualities."""

import torch
from torch import Tensor

from la_det.geometry import ltrb_distances
from la_det.steps.select.groups import best_in_group
from la_det.structures import Pairs, Priors, Targets


def mean_plus_std(iou: Tensor, exists: Tensor | None = None) -> Tensor:
    """Mean plus unbiased standard deviation [..., G] of candidates' IoUs [..., G, C]; NaN for a single candidate.

    Args:
        iou: IoU of each candidate.
        exists: [..., G, C] bool, the candidates that count; by default all.
    """
    if exists is not None:
        count = exists.sum(-1)
        mean = (iou * exists).sum(-1) / count
        variance = ((iou - mean.unsqueeze(-1)) * exists).square().sum(-1) / (count - 1)
        return mean + variance.sqrt()
    if iou.shape[-1] == 1 or iou.numel() == 0:  # std_mean would warn
        return iou.new_full(iou.shape[:-1], torch.nan)
    std, mean = torch.std_mean(iou, -1)
    return mean + std


def above_threshold(
    candidates: Tensor,
    iou: Tensor,
    threshold: Tensor,
    priors: Priors,
    targets: Targets,
    margin: float,
    exists: Tensor | None = None,
) -> tuple[Pairs, Tensor]:
    """The candidates that reach the threshold and have their centre inside the box; each goes to its largest IoU.

    Args:
        candidates: [G, C] indices of priors.
        iou: [G, C] IoU or quality of each candidate.
        threshold: [G]. No candidate reaches NaN, the threshold of a single candidate.
        priors, targets, margin: see `ATSS`.
        exists: [G, C] bool, the candidates that count; by default all.

    Returns:
        The positives, and their indices in the flattened `candidates`. Ties go to the first ground truth.
    """
    ltrb = ltrb_distances(priors.points[candidates], priors.inset(targets.boxes).unsqueeze(1))
    positive = (iou >= threshold.unsqueeze(1)) & (ltrb.amin(-1) > margin)
    positive = (positive if exists is None else positive & exists).flatten()
    location = (targets.image.unsqueeze(1) * len(priors) + candidates).flatten()
    best = best_in_group(location, iou.flatten(), targets.num_images * len(priors), among=positive)
    where = best.nonzero().squeeze(1)  # host synchronisation: the number of positives
    gt = where.div(max(candidates.shape[1], 1), rounding_mode="floor")
    return Pairs(targets.image[gt], candidates.flatten()[where], gt), where
