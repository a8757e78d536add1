"""Stages of ResNet-50/101 and ResNeXt-101, with or without deformable convolutions.

Detectron2's `ResNet.make_default_stages` knows neither ResNeXt's widths nor deformable stages, and its own deformable
block needs compiled code that runs on GPUs only.
"""

from collections.abc import Collection

from detectron2.layers import CNNBlockBase, get_norm
from detectron2.modeling.backbone import ResNet
from detectron2.modeling.backbone.resnet import BottleneckBlock

from la_det.modeling.layers.deform_conv import ModulatedDeformConv2d, OffsetInit

_NUM_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class DeformBottleneckBlock(BottleneckBlock):
    """A bottleneck whose 3x3 convolution is a modulated deformable one (DCNv2).

    Its weight keeps the name `conv2.weight`, so ImageNet weights of plain blocks fit.

    Args:
        offset_init: see `ModulatedDeformConv2d`; all other arguments are those of `BottleneckBlock`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: str = "BN",
        stride_in_1x1: bool = False,
        offset_init: OffsetInit = "zeros",
    ):
        super().__init__(
            in_channels,
            out_channels,
            bottleneck_channels=bottleneck_channels,
            stride=stride,
            num_groups=num_groups,
            norm=norm,
            stride_in_1x1=stride_in_1x1,
        )
        conv = self.get_submodule("conv2")
        self.conv2 = ModulatedDeformConv2d(
            conv.in_channels,
            conv.out_channels,
            stride=conv.stride[0],
            groups=conv.groups,
            bias=False,
            norm=get_norm(norm, conv.out_channels),
            offset_init=offset_init,
        )
        self.conv2.weight = conv.weight  # initialised as the plain block's


def bottleneck_stages(
    depth: int,
    *,
    norm: str,
    stride_in_1x1: bool = False,
    num_groups: int = 1,
    width_per_group: int = 64,
    dcn_stages: Collection[str] = (),
    offset_init: OffsetInit = "zeros",
) -> list[list[CNNBlockBase]]:
    """The stages res2 to res5 of a ResNet or ResNeXt of bottleneck blocks, for Detectron2's `ResNet`.

    Args:
        depth: 50 or 101.
        norm: name of the normalisation.
        stride_in_1x1: whether the first 1x1 convolution of a stage strides, instead of the 3x3 convolution.
        num_groups, width_per_group: groups of the 3x3 convolutions in res2; ResNeXt-101 32x8d has 32 groups of width 8.
        dcn_stages: names of the stages whose blocks are deformable.
        offset_init: see `ModulatedDeformConv2d`.
    """
    stages = []
    in_channels, out_channels, bottleneck_channels = 64, 256, num_groups * width_per_group
    for i, num_blocks in enumerate(_NUM_BLOCKS[depth]):
        deformable = f"res{i + 2}" in dcn_stages
        stages.append(
            ResNet.make_stage(
                DeformBottleneckBlock if deformable else BottleneckBlock,
                num_blocks,
                in_channels=in_channels,
                out_channels=out_channels,
                bottleneck_channels=bottleneck_channels,
                stride_per_block=[1 if i == 0 else 2] + [1] * (num_blocks - 1),
                num_groups=num_groups,
                norm=norm,
                stride_in_1x1=stride_in_1x1,
                **(dict(offset_init=offset_init) if deformable else {}),
            )
        )
        in_channels, out_channels, bottleneck_channels = out_channels, 2 * out_channels, 2 * bottleneck_channels
    return stages
