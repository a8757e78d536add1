"""The convolution towers of FCOS-style heads."""

from torch import Tensor, nn

from la_det.modeling.layers import ModulatedDeformConv2d
from la_det.modeling.layers.deform_conv import OffsetInit


class ConvTower(nn.Sequential):
    """[3x3 convolution -> GroupNorm -> ReLU] x n, weights shared by all levels.

    Args:
        in_channels: channels of the feature maps.
        channels: channels of every convolution; `in_channels` by default.
        num_convs: n.
        groups: groups of the normalisation.
        bias: whether the convolutions have a bias.
        norm: whether a GroupNorm follows each convolution.
        last_dcn: `offset_init` of a modulated deformable convolution (DCNv2) as the last one; None: a plain one.
        first_dcn: number of first convolutions that are modulated deformable ones, with 4 groups of offsets (TOOD).
    """

    def __init__(
        self,
        *,
        in_channels: int = 256,
        channels: int | None = None,
        num_convs: int = 4,
        groups: int = 32,
        bias: bool = True,
        norm: bool = True,
        last_dcn: OffsetInit | None = None,
        first_dcn: int = 0,
    ):
        channels = channels or in_channels
        layers: list[nn.Module] = []
        for i in range(num_convs):
            inputs = in_channels if i == 0 else channels
            if i < first_dcn:
                conv = ModulatedDeformConv2d(inputs, channels, bias=bias, offset_groups=4)
                nn.init.normal_(conv.weight, std=0.01)
            elif last_dcn is not None and i == num_convs - 1:
                conv = ModulatedDeformConv2d(inputs, channels, bias=bias, offset_init=last_dcn)
            else:
                conv = nn.Conv2d(inputs, channels, 3, padding=1, bias=bias)
                init_head_conv(conv)
            layers += [conv, nn.GroupNorm(groups, channels), nn.ReLU()] if norm else [conv, nn.ReLU()]
        super().__init__(*layers)
        self.out_channels = channels


def init_head_conv(module: nn.Module) -> None:
    """Initialises a plain convolution of a head as FCOS does: weights N(0, 0.01), bias 0. Ignores other modules."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def on_levels(module: nn.Module, features: list[Tensor]) -> list[Tensor]:
    """Applies a shared module to every level; one that sees all levels gets them at once."""
    return module(features) if getattr(module, "sees_all_levels", False) else [module(x) for x in features]
