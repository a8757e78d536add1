"""Modulated deformable convolution (DCNv2: Zhu et al., CVPR 2019, section 3.2) on torchvision's operator."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.ops import DeformConv2d, deform_conv2d

OffsetInit = Literal["zeros", "normal", "kaiming_uniform"]

OFFSET_INITS: dict[str, Callable[[Tensor], Tensor]] = {
    "zeros": nn.init.zeros_,
    "normal": partial(nn.init.normal_, std=0.01),
    "kaiming_uniform": partial(nn.init.kaiming_uniform_, a=1),
}


class ModulatedDeformConv2d(DeformConv2d):
    """3x3 convolution that samples its 9 taps at learnt offsets, each with a learnt weight in 0..1.

    The channels of `offset` are the taps' offsets in cells, (dy, dx) tap by tap in one group of channels after the
    other, and then logits of their weights in the same order: 18 and 9 with one group.

    Args:
        in_channels, out_channels, stride, groups, bias: parameters of the convolution.
        offset_groups: number of groups of input channels, each with offsets and tap weights of its own.
        norm: normalisation of the result.
        offset_init: initial weights of the convolution that predicts offsets; its bias starts at 0.
            "zeros": no offsets, and tap weights of 0.5, as in the paper.
            "normal": N(0, 0.01).
            "kaiming_uniform": Kaiming's uniform initialisation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        groups: int = 1,
        offset_groups: int = 1,
        bias: bool = True,
        norm: nn.Module | None = None,
        offset_init: OffsetInit = "zeros",
    ):
        super().__init__(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups, bias=bias)
        if bias:
            nn.init.zeros_(self.bias)
        self.offset = nn.Conv2d(in_channels, 27 * offset_groups, 3, stride=stride, padding=1)
        OFFSET_INITS[offset_init](self.offset.weight)
        nn.init.zeros_(self.offset.bias)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Turns [N, in_channels, h, w] into [N, out_channels, ceil(h / stride), ceil(w / stride)]."""
        channels = self.offset.out_channels
        offset, modulation = self.offset(x).float().split((channels * 2 // 3, channels // 3), dim=1)
        # Positions need single precision, also under AMP. On CPUs torchvision's operator has no bfloat16.
        with torch.autocast(x.device.type, enabled=False):
            bias = None if self.bias is None else self.bias.float()
            geometry = (self.stride, self.padding, self.dilation)
            sampled = deform_conv2d(x.float(), offset, self.weight.float(), bias, *geometry, modulation.sigmoid())
            sampled = sampled.to(x.dtype)
        return sampled if self.norm is None else self.norm(sampled)
