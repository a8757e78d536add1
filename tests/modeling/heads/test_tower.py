import pytest
import torch
from torch import nn

from la_det.modeling.heads import ConvTower, XavierTower
from la_det.modeling.layers import ModulatedDeformConv2d


def test_plain_tower():
    torch.manual_seed(0)
    tower = ConvTower(in_channels=64, num_convs=3, groups=8)
    assert [type(layer) for layer in tower] == 3 * [nn.Conv2d, nn.GroupNorm, nn.ReLU]
    for conv in list(tower)[::3]:
        assert conv.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert not conv.bias.any()


def test_tower_without_norm():
    tower = ConvTower(in_channels=64, num_convs=2, norm=False, bias=False)
    assert [type(layer) for layer in tower] == 2 * [nn.Conv2d, nn.ReLU]
    assert all(conv.bias is None for conv in list(tower)[::2])


def test_xavier():
    torch.manual_seed(0)
    tower = XavierTower(in_channels=64, num_convs=2, groups=8)
    for conv in list(tower)[::3]:
        bound = (6 / (9 * 64 + 9 * 64)) ** 0.5
        assert 0.99 * bound < conv.weight.abs().max() <= bound
        assert 0 < conv.bias.abs().max() <= (9 * 64) ** -0.5  # PyTorch's own


@pytest.mark.parametrize(("offset_init", "std"), [("zeros", 0.0), ("normal", 0.01)])
def test_last_convolution_deformable(offset_init, std):
    """The tower's N(0, 0.01) is neither the deformable weight's initialisation nor necessarily the offsets'."""
    torch.manual_seed(0)
    tower = ConvTower(in_channels=64, num_convs=2, groups=8, last_dcn=offset_init)
    assert [type(layer) for layer in list(tower)[::3]] == [nn.Conv2d, ModulatedDeformConv2d]
    dcn = tower[3]
    bound = (9 * 64) ** -0.5
    assert 0.99 * bound < dcn.weight.abs().max() <= bound
    assert dcn.bias is not None and not dcn.bias.any()
    assert dcn.offset.weight.std().item() == pytest.approx(std, rel=0.05)
    assert tower(torch.randn(1, 64, 5, 7)).shape == (1, 64, 5, 7)
