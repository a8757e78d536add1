import pytest
import torch
import torch.nn.functional as F
from torch import nn

from la_det.modeling.layers import ModulatedDeformConv2d


@pytest.mark.parametrize("stride, groups", [(1, 1), (2, 1), (1, 4)])
def test_zero_offsets_give_half_a_plain_convolution(stride, groups):
    layer = ModulatedDeformConv2d(8, 12, stride=stride, groups=groups)
    x = torch.randn(2, 8, 7, 5)
    plain = F.conv2d(x, layer.weight, stride=stride, padding=1, groups=groups)
    torch.testing.assert_close(layer(x), 0.5 * plain)


def test_offsets_are_dy_dx_per_tap_and_then_the_taps_weights():
    layer = ModulatedDeformConv2d(1, 1)
    nn.init.zeros_(layer.weight)
    layer.weight.data[0, 0, 1, 1] = 1.0  # only the centre tap, number 4
    bias = torch.zeros(27)
    bias[2 * 4], bias[2 * 4 + 1] = 1.0, -2.0  # one row down, two columns left
    bias[18 + 4] = 3.0
    layer.offset.bias.data = bias
    x = torch.randn(1, 1, 6, 7)
    expected = torch.zeros_like(x)
    expected[..., :-1, 2:] = x[..., 1:, :-2] * torch.tensor(3.0).sigmoid()
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("offset_init", ["zeros", "normal", "kaiming_uniform"])
def test_initialisation(offset_init):
    torch.manual_seed(0)
    layer = ModulatedDeformConv2d(64, 32, offset_init=offset_init)
    bound = (9 * 64) ** -0.5
    assert 0.99 * bound < layer.weight.abs().max() <= bound
    assert not layer.bias.any() and not layer.offset.bias.any()
    # kaiming uniform with a = 1 has the bound sqrt(3 / fan in)
    expected_std = {"zeros": 0.0, "normal": 0.01, "kaiming_uniform": (9 * 64) ** -0.5}[offset_init]
    assert layer.offset.weight.std().item() == pytest.approx(expected_std, rel=0.05)


def test_gradients_reach_everything_and_amp_works_on_cpu():
    layer = ModulatedDeformConv2d(4, 4, norm=nn.BatchNorm2d(4), offset_init="normal")
    x = torch.randn(2, 4, 6, 6, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(x.bfloat16()).float().square().sum().backward()
    for tensor in (x, *layer.parameters()):
        assert tensor.grad is not None and tensor.grad.isfinite().all()
    assert layer.offset.weight.grad.any()


def test_weights_in_half_precision():
    """As exports store them; sampling itself stays in single precision."""
    torch.manual_seed(0)
    layer = ModulatedDeformConv2d(4, 6, offset_init="normal").requires_grad_(False)
    x = torch.randn(1, 4, 7, 9)
    expected = layer(x)
    found = layer.half()(x.half())
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), expected, atol=2e-2, rtol=0)


def test_every_group_of_channels_has_its_own_offsets():
    """Group 0 is read one cell further right, group 1 one further down; the weights of all taps are nearly 1."""
    conv = ModulatedDeformConv2d(4, 1, bias=False, offset_groups=2)
    assert conv.offset.out_channels == 2 * 27
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, :, 1, 1] = torch.tensor([1.0, 10.0, 100.0, 1000.0])
        conv.offset.bias[1:18:2] = 1.0  # dx of group 0
        conv.offset.bias[18:36:2] = 1.0  # dy of group 1
        conv.offset.bias[36:] = 100.0
    x = torch.randn(1, 4, 5, 6)
    expected = x[:, 0, 1:4, 2:5] + 10 * x[:, 1, 1:4, 2:5] + 100 * x[:, 2, 2:5, 1:4] + 1000 * x[:, 3, 2:5, 1:4]
    torch.testing.assert_close(conv(x)[:, 0, 1:4, 1:4], expected, rtol=1e-4, atol=1e-3)
