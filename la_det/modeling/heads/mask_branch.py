"""CondInst's branches with one map per image (Tian et al., ECCV 2020, sections 3.2 and 3.3)."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from la_det.modeling.heads.tower import init_head_conv
from la_det.modeling.layers.aligned_bilinear import aligned_bilinear


def conv_bn_relu(in_channels: int, out_channels: int) -> list[nn.Module]:
    """3x3 convolution -> BatchNorm -> ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU()]


class MaskBranch(nn.Module):
    """Mask features for the dynamic mask heads, from the finest levels, which are added at the finest resolution.

    Args:
        in_channels: channels of the pyramid.
        channels: channels of the convolutions.
        num_levels: number of levels; each has half the resolution of the level before.
        num_convs: number of convolutions on the sum of the levels.
        out_channels: channels of the mask features.
    """

    def __init__(
        self,
        *,
        in_channels: int = 256,
        channels: int = 128,
        num_levels: int = 3,
        num_convs: int = 4,
        out_channels: int = 8,
    ):
        super().__init__()
        self.refine = nn.ModuleList(nn.Sequential(*conv_bn_relu(in_channels, channels)) for _ in range(num_levels))
        tower = [layer for _ in range(num_convs) for layer in conv_bn_relu(channels, channels)]
        self.tower = nn.Sequential(*tower, nn.Conv2d(channels, out_channels, 1))
        self.apply(init_head_conv)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Mask features [N, out_channels, h, w] of the finest level's size, no activation."""
        joined = [aligned_bilinear(refine(features[level]), 2**level) for level, refine in enumerate(self.refine)]
        return self.tower(sum(joined))


class SemanticBranch(nn.Sequential):
    """Class logits of every cell of the finest level; only the semantic loss reads them.

    Args:
        in_channels: channels of the pyramid.
        channels: channels of the convolutions.
        num_classes: K.
        prior_prob: initial probability of every class.
    """

    def __init__(self, *, in_channels: int = 256, channels: int = 128, num_classes: int = 80, prior_prob: float = 0.01):
        logits = nn.Conv2d(channels, num_classes, 1)
        super().__init__(*conv_bn_relu(in_channels, channels), *conv_bn_relu(channels, channels), logits)
        self.apply(init_head_conv)
        nn.init.constant_(logits.bias, -math.log((1 - prior_prob) / prior_prob))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits [N, K, h, w]."""
        return super().forward(features[0])
