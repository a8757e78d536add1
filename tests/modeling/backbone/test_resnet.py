import pytest
import torch
from detectron2.modeling.backbone import BasicStem, ResNet

from la_det.modeling.backbone import DeformBottleneckBlock, bottleneck_stages
from la_det.modeling.layers import ModulatedDeformConv2d


def shapes(stages) -> dict[str, tuple]:
    return {
        f"{i}.{name}": tuple(v.shape)
        for i, stage in enumerate(stages)
        for block in [torch.nn.Sequential(*stage)]
        for name, v in block.state_dict().items()
    }


def test_resnet50_is_detectron2s():
    ours = bottleneck_stages(50, norm="FrozenBN", stride_in_1x1=True)
    theirs = ResNet.make_default_stages(50, norm="FrozenBN", stride_in_1x1=True)
    assert shapes(ours) == shapes(theirs)
    assert [b.conv1.stride for s in ours for b in s] == [b.conv1.stride for s in theirs for b in s]


@pytest.mark.parametrize("groups, width, expected", [(32, 8, (256, 8)), (64, 4, (256, 4))])
def test_resnext_widths(groups, width, expected):
    res2, _, _, res5 = bottleneck_stages(101, norm="FrozenBN", num_groups=groups, width_per_group=width)
    assert tuple(res2[0].conv2.weight.shape[:2]) == expected
    assert res5[0].conv2.weight.shape[0] == 2048
    assert res5[0].conv2.stride == (2, 2)


def test_deformable_stages_take_plain_weights_and_train():
    torch.manual_seed(0)
    plain = ResNet(BasicStem(norm="FrozenBN"), bottleneck_stages(50, norm="FrozenBN"), out_features=["res5"])
    stages = bottleneck_stages(50, norm="FrozenBN", dcn_stages=["res4", "res5"], offset_init="kaiming_uniform")
    deformable = ResNet(BasicStem(norm="FrozenBN"), stages, out_features=["res5"])
    missing, unexpected = deformable.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert all(".conv2.offset." in name for name in missing)
    kinds = [{type(block.conv2) is ModulatedDeformConv2d for block in stage} for stage in stages]
    assert kinds == [{False}, {False}, {True}, {True}]
    deformable(torch.randn(1, 3, 64, 64))["res5"].square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in deformable.parameters())


def test_deformable_block_starts_as_half_the_plain_3x3():
    block = DeformBottleneckBlock(16, 16, bottleneck_channels=8, stride=1, norm="", num_groups=2)
    x = torch.rand(1, 8, 5, 5)
    plain = torch.nn.functional.conv2d(x, block.conv2.weight, padding=1, groups=2)
    torch.testing.assert_close(block.conv2(x), 0.5 * plain)
