"""3D max filtering (Wang et al., CVPR 2021, section 3.3)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MaxFiltering(nn.Module):
    """Adds to each position the maximum of its neighbourhood in space (3 x 3) and in scale (the adjacent levels).

    With y = conv(x), the maximum is taken over y of the same level and of the next finer and coarser levels, resized
    bilinearly: phi = 3 and tau = 2 of the paper. The output is ReLU(GN(maximum + x)). All levels share the weights.

    Args:
        channels: channels of the feature maps.
        groups: groups of the normalisation; None: no normalisation.
    """

    def __init__(self, *, channels: int = 256, groups: int | None = 32):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.Identity() if groups is None else nn.GroupNorm(groups, channels)
        nn.init.normal_(self.conv.weight, std=0.01)
        nn.init.zeros_(self.conv.bias)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Turns L maps [N, C, h, w], finest first, into maps of the same shapes."""
        filtered = [self.conv(x) for x in features]
        outputs = []
        for level, x in enumerate(features):
            size = x.shape[-2:]
            maximum = filtered[level]
            for adjacent in filtered[max(level - 1, 0) : level] + filtered[level + 1 : level + 2]:
                resized = F.interpolate(adjacent, size=size, mode="bilinear", align_corners=False)
                maximum = torch.maximum(maximum, resized)
            maximum = F.max_pool2d(maximum, 3, stride=1, padding=1)
            outputs.append(F.relu(self.norm(maximum + x)))
        return outputs


def filtered_logits(logits: Tensor, filter_logits: Tensor, eps: float = 1e-5) -> Tensor:
    """The logit of p = sigma(logits) sigma(filter_logits), with p and 1 - p at least `eps` (DATE, official code).

    Args:
        logits: [N, K, h, w].
        filter_logits: [N, 1, h, w].
    """
    p = logits.sigmoid() * filter_logits.sigmoid()
    return (p.clamp(min=eps) / (1 - p).clamp(min=eps)).log()
