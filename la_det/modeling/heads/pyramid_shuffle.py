"""The parts of DDQ's head (Zhang et al., CVPR 2023, arXiv 2303.12776)."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from la_det.modeling.heads.branch_predictor import BranchPredictor
from la_det.modeling.heads.tower import ConvTower, init_head_conv, on_levels
from la_det.structures import LTRBCodec, Priors


class ShuffledTower(ConvTower):
    """A tower whose last layers see the adjacent levels: it takes all levels at once.

    Args:
        shuffled: before how many of the convolutions, the last ones, levels exchange channels.
        options: of `ConvTower`.
    """

    sees_all_levels = True

    def __init__(self, *, shuffled: int, **options: Any):
        super().__init__(**options)
        self.shuffled = shuffled

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """L maps [N, C, h, w], finest first, to maps of the same sizes."""
        convs = [layer for layer in self if isinstance(layer, nn.Conv2d)]
        for layer in self:
            if layer in convs[len(convs) - self.shuffled :]:
                features = pyramid_shuffle(features)
            features = on_levels(layer, features)
        return features


def pyramid_shuffle(features: list[Tensor]) -> list[Tensor]:
    """Every level with two quarters of its channels from other levels, resized to its size.

    The third quarter becomes the last one of the next coarser level, the last quarter the third one of the next finer
    level. A level at the end of the pyramid takes its own in place of that of a missing one.

    Args:
        features: L maps [N, C, h, w], finest first.
    """
    q, last = features[0].shape[1] // 4, len(features) - 1
    kept, third, fourth = zip(*(x.split((x.shape[1] - 2 * q, q, q), 1) for x in features), strict=True)

    def resized(x: Tensor, level: int) -> Tensor:
        return F.interpolate(x, size=features[level].shape[-2:], mode="bilinear", align_corners=True)

    shuffled = []
    for level, own in enumerate(kept):
        coarser = fourth[level] if level == last else resized(fourth[level + 1], level)
        finer = third[level] if level == 0 else resized(third[level - 1], level)
        shuffled.append(torch.cat([own, coarser, finer], 1))
    return shuffled


class QueryPredictor(BranchPredictor):
    """DDQ's last layers: objectness from the box tower, and distances in strides with level scales of their own.

    The scales are factors of the exponential, not of its argument.

    Args:
        in_channels: of both towers.
        num_levels: L.
        default_squeeze: the first layer of the objectness keeps PyTorch's initialisation, as in DDQ's auxiliary branch.
        options: of `BranchPredictor`.
    """

    def __init__(self, *, in_channels: int = 256, num_levels: int = 5, default_squeeze: bool = False, **options: Any):
        super().__init__(
            in_channels=in_channels,
            codec=LTRBCodec(in_strides=True),
            quality_on="box",
            quality_tower=_Squeeze(in_channels, default_squeeze),
            **options,
        )
        self.scales = nn.Parameter(torch.ones(num_levels))

    def box_maps(self, box_features: list[Tensor], scales: Sequence[Tensor | None], priors: Priors) -> list[Tensor]:
        """L maps [N, 4, h, w] float32 of distances in strides."""
        return [
            self.boxes(x).float().exp() * scale for x, scale in zip(box_features, self.scales.unbind(), strict=True)
        ]


class _Squeeze(nn.Sequential):
    """1x1 convolution to a quarter of the channels, and ReLU."""

    def __init__(self, channels: int, default_init: bool):
        super().__init__(nn.Conv2d(channels, channels // 4, 1), nn.ReLU())
        self.out_channels = channels // 4
        if not default_init:
            self.apply(init_head_conv)
