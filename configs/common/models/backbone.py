"""ResNet + FPN backbones in the two flavours of published weights, with the matching pixel statistics."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from detectron2.modeling.backbone.fpn import LastLevelP6P7

from la_det.modeling.backbone import TimmBackbone, bottleneck_stages

# MSRA / Caffe weights: BGR, stride in the 1x1 convolutions.
msra_pixels = dict(pixel_mean=[103.53, 116.28, 123.675], pixel_std=[1.0, 1.0, 1.0], input_format="BGR")
# torchvision weights: RGB, stride in the 3x3 convolutions.
torchvision_pixels = dict(pixel_mean=[123.675, 116.28, 103.53], pixel_std=[58.395, 57.12, 57.375], input_format="RGB")


def resnet_fpn(depth, *, norm="FrozenBN", freeze_at=2, channels=256, p6_from="p5", **bottleneck):
    """A ResNet with an FPN, from C3-C5 to P3-P7.

    `p6_from` is "p5" (the FPN output) or "res5". Training from random weights needs norm="BN" and freeze_at=0. From
    depth 50 on, `bottleneck` are options of `bottleneck_stages`: stride_in_1x1=True for MSRA weights, ResNeXt's
    num_groups and width_per_group, dcn_stages=["res3", "res4", "res5"] with offset_init.
    """
    make_stages = bottleneck_stages if depth >= 50 else ResNet.make_default_stages
    stages = L(make_stages)(depth=depth, norm=norm, **bottleneck)
    top_channels = channels if p6_from == "p5" else (512 if depth < 50 else 2048)
    return L(FPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm=norm),
            stages=stages,
            out_features=["res3", "res4", "res5"],
            freeze_at=freeze_at,
        ),
        in_features=["res3", "res4", "res5"],
        out_channels=channels,
        top_block=L(LastLevelP6P7)(in_channels=top_channels, out_channels=channels, in_feature=p6_from),
    )


def timm_fpn(model_name, *, channels=256, **options):
    """A timm model with an FPN, from strides 8 to 32 to P3-P7; `options` are those of `TimmBackbone`."""
    return L(FPN)(
        bottom_up=L(TimmBackbone)(model_name=model_name, **options),
        in_features=["stride8", "stride16", "stride32"],
        out_channels=channels,
        top_block=L(LastLevelP6P7)(in_channels=channels, out_channels=channels, in_feature="p5"),
    )
