import pytest
import torch
import torch.nn.functional as F

from la_det.modeling.layers import MaxFiltering

SIZES = [(12, 16), (6, 8), (3, 4), (2, 2), (1, 1)]


def make_layer(groups: int | None = 4, channels: int = 8) -> MaxFiltering:
    torch.manual_seed(0)
    layer = MaxFiltering(channels=channels, groups=groups)
    torch.nn.init.normal_(layer.conv.weight, std=0.3)
    torch.nn.init.normal_(layer.conv.bias)
    return layer


def make_features(sizes=SIZES, channels: int = 8, num_images: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(num_images, channels, *size, generator=generator) for size in sizes]


@pytest.mark.parametrize("groups", [4, None])
@pytest.mark.parametrize("num_levels", [1, 2, 5])
def test_same_as_a_3d_max_pool(groups, num_levels):
    """Stack the adjacent levels, resized, and pool with a 3 x 3 x 3 window, as the paper states it."""
    layer, features = make_layer(groups), make_features(SIZES[:num_levels])
    filtered = [layer.conv(x) for x in features]
    for level, (x, actual) in enumerate(zip(features, layer(features), strict=True)):
        adjacent = filtered[max(level - 1, 0) : level + 2]
        stack = torch.stack([F.interpolate(y, x.shape[-2:], mode="bilinear") for y in adjacent], 2)
        depth = level - max(level - 1, 0)
        maximum = F.max_pool3d(stack, 3, stride=1, padding=1)[:, :, depth]
        expected = maximum + x
        if groups:
            expected = F.group_norm(expected, groups, layer.norm.weight, layer.norm.bias)
        torch.testing.assert_close(actual, F.relu(expected))


def test_a_level_sees_only_the_adjacent_ones():
    layer, features = make_layer(), make_features()
    before = layer(features)
    features[0] = features[0] + 100
    changed = [not torch.equal(a, b) for a, b in zip(before, layer(features), strict=True)]
    assert changed == [True, True, False, False, False]


def test_every_input_and_weight_has_a_gradient():
    layer, features = make_layer(), [x.requires_grad_() for x in make_features()]
    sum(y.square().sum() for y in layer(features)).backward()
    for tensor in [*layer.parameters(), *features]:
        assert tensor.grad.isfinite().all()
        assert tensor.grad.any()


def test_initial_weights():
    torch.manual_seed(0)
    layer = MaxFiltering()
    assert layer.conv.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not layer.conv.bias.any()
    assert layer.norm.num_groups == 32
    assert not list(MaxFiltering(groups=None).norm.parameters())
