"""DDQ's tower and last layers."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import instantiate

from la_det import model_zoo
from la_det.modeling.heads import ConvTower, ShuffledTower
from la_det.modeling.heads.pyramid_shuffle import pyramid_shuffle

SIZES = [(12, 16), (6, 8), (3, 4)]


def features(channels=8):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, channels, *size, generator=generator) for size in SIZES]


def test_which_channels_come_from_where():
    maps = features()
    first, middle, last = pyramid_shuffle(maps)
    for new, old in zip((first, middle, last), maps, strict=True):
        assert torch.equal(new[:, :4], old[:, :4])

    def resized(x, size):
        return F.interpolate(x, size, mode="bilinear", align_corners=True)

    torch.testing.assert_close(middle[:, 4:6], resized(maps[2][:, 6:], SIZES[1]))  # from the coarser level
    torch.testing.assert_close(middle[:, 6:], resized(maps[0][:, 4:6], SIZES[1]))  # from the finer level
    assert torch.equal(first[:, 6:], maps[0][:, 4:6]) and torch.equal(last[:, 4:6], maps[2][:, 6:])


@pytest.mark.parametrize("shuffled", [0, 1, 2])
def test_the_last_layers_see_other_levels(shuffled):
    torch.manual_seed(0)
    tower = ShuffledTower(shuffled=shuffled, in_channels=8, num_convs=3, groups=2, bias=False)
    plain = ConvTower(in_channels=8, num_convs=3, groups=2, bias=False)
    plain.load_state_dict(tower.state_dict())
    maps, layers = features(), list(plain)
    for i in range(3):
        maps = pyramid_shuffle(maps) if i >= 3 - shuffled else maps
        for layer in layers[3 * i : 3 * i + 3]:
            maps = [layer(x) for x in maps]
    for x, expected in zip(tower(features()), maps, strict=True):
        assert torch.equal(x, expected)


def test_head_starts_as_the_official_one():
    head = instantiate(model_zoo.get_config("common/models/ddq_fcn").model).head
    assert sum(p.numel() for p in head.parameters()) == 5_143_988
    auxiliary = head.predictors["auxiliary"]
    assert sum(p.numel() for p in auxiliary.parameters()) == 210_650
    main = head.predictors["main"]
    for branch, prior in ((main, 0.0), (auxiliary, -4.59512)):
        assert branch.quality.bias.item() == pytest.approx(prior, abs=1e-5)
        assert branch.logits.bias.unique().item() == pytest.approx(-4.59512)
        assert branch.scales.tolist() == [1.0] * 5
        assert branch.quality.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert (
        main.quality_tower[0].weight.std().item() == pytest.approx(0.01, rel=0.1)
        and not main.quality_tower[0].bias.any()
    )
    weight = auxiliary.quality_tower[0].weight
    assert 0.06 < weight.abs().max() <= 1 / 16 and weight.std().item() == pytest.approx(1 / 16 / 3**0.5, rel=0.05)


def test_distances_are_scaled_outside_of_the_exponential_and_in_strides():
    head = instantiate(model_zoo.get_config("common/models/ddq_fcn").model).head
    with torch.no_grad():
        head.predictors["main"].scales.copy_(torch.tensor([0.5, 1, 2, 3, 4]))
    maps = [torch.zeros(1, 256, 8 // 2**level or 1, 8 // 2**level or 1) for level in range(5)]
    predictions = head(maps, ["main"])
    assert list(predictions) == ["main"]
    boxes = predictions["main"].maps["boxes"]
    assert [x.unique().item() for x in boxes] == pytest.approx([0.5, 1, 2, 3, 4])
    width = predictions["main"].boxes()[0, 0, 2] - predictions["main"].boxes()[0, 0, 0]
    assert width == 8.0  # two halves of a stride
