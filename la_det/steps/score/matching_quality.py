"""The quality of a match that POTO introduced and later schemes took over."""

from torch import Tensor


def matching_quality(p: Tensor, iou: Tensor, alpha: float) -> Tensor:
    """q = p^(1 - alpha) IoU^alpha of classification probabilities and IoUs (POTO, CVPR 2021, eq. 5)."""
    return p ** (1 - alpha) * iou**alpha
