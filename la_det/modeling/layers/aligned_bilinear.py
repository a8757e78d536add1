"""Bilinear upsampling that keeps the positions of a feature map's cells (CondInst, ECCV 2020)."""

import torch.nn.functional as F
from torch import Tensor


def aligned_bilinear(x: Tensor, factor: int) -> Tensor:
    """Upsamples [N, C, h, w] to [N, C, factor h, factor w].

    Row i of the result lies at row (i - factor // 2) / factor of x, but not beyond its first and last row.
    """
    if factor == 1:
        return x
    h, w = x.shape[-2:]
    x = F.pad(x, (0, 1, 0, 1), mode="replicate")
    x = F.interpolate(x, size=(factor * h + 1, factor * w + 1), mode="bilinear", align_corners=True)
    x = F.pad(x, (factor // 2, 0, factor // 2, 0), mode="replicate")
    return x[..., : factor * h, : factor * w]
