"""The T-head and branches with towers of their own; that its numbers are the official ones is in tests/golden."""

import math

import pytest
import torch
from torch import nn

from la_det.modeling.heads import ConvTower, DenseHead, SeparatePredictor, TaskAlignedPredictor
from la_det.modeling.heads.task_aligned import TaskDecomposition
from la_det.modeling.layers import ModulatedDeformConv2d
from la_det.structures import AnchorGenerator, DeltaCodec, LTRBCodec, PointGenerator

SIZES = [(16, 12), (8, 6), (4, 3), (2, 2), (1, 1)]
PRIORS = AnchorGenerator(sizes=(8.0,), offset=0.0)


def features(channels=16, images=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(images, channels, *size, generator=generator, requires_grad=True) for size in SIZES]


def make_head(**options) -> DenseHead:
    """A head with the T-head alone."""
    torch.manual_seed(0)
    options = {"coarse_codec": LTRBCodec(in_strides=True), "num_convs": 3, "groups": 4, **options}
    predictor = TaskAlignedPredictor(**{"in_channels": 16, "num_classes": 3, "priors": PRIORS} | options)
    return DenseHead(cls_tower=None, box_tower=None, predictors={"main": predictor})


def test_decomposition_is_a_convolution_of_weighted_layers():
    torch.manual_seed(0)
    layer = TaskDecomposition(channels=16, num_layers=3, groups=4)
    for parameter in layer.attention.parameters():
        nn.init.normal_(parameter)
    stacked = torch.randn(2, 48, 5, 7)
    mean = stacked.mean((2, 3), keepdim=True)
    weights = layer.attention(mean)
    assert weights.shape == (2, 3, 1, 1) and weights.std() > 0.01
    scaled = stacked * weights.repeat_interleave(16, 1)
    torch.testing.assert_close(layer(stacked, mean), layer.norm(layer.reduction(scaled)).relu(), rtol=1e-4, atol=1e-5)


def test_maps_and_their_start():
    """All probabilities are about 0.01, coarse boxes reach one stride, and sides are read where they are."""
    head = make_head()
    nn.init.zeros_(head.predictors["main"].boxes.weight)
    predictions = head(features())["main"]
    assert {name: [x.shape[1] for x in maps] for name, maps in predictions.maps.items()} == {
        "logits": [3] * 5,
        "boxes": [4] * 5,
        "quality": [1] * 5,
    }
    for name in ("logits", "quality"):
        p = predictions.maps[name][0].sigmoid()
        torch.testing.assert_close(p, torch.full_like(p, 0.01), rtol=0, atol=0.005)
    points = predictions.priors.points.view(1, -1, 2)
    first = slice(0, SIZES[0][0] * SIZES[0][1])
    expected = torch.cat([points - 8, points + 8], -1)[:, first].expand(2, -1, -1)
    inner = ((points > 0) & (points < 80)).all(-1)[0, first]
    torch.testing.assert_close(predictions.boxes()[:, first][:, inner], expected[:, inner], rtol=0, atol=0.5)


@pytest.mark.parametrize("name, std", [("tower", 0.01), ("logits", 0.01), ("boxes", 0.01), ("quality", 0.01)])
def test_initial_weights(name, std):
    predictor = make_head(in_channels=128, groups=32).predictors["main"]
    convs = [m for m in getattr(predictor, name).modules() if isinstance(m, nn.Conv2d)]
    for conv in convs:
        assert conv.weight.std().item() == pytest.approx(std, rel=0.15)
    for layer in (predictor.offset, predictor.cls_decomposition.attention, predictor.box_decomposition.attention):
        for conv in (layer[0], layer[2]):
            assert conv.weight.std().item() == pytest.approx(0.001, rel=0.3)
    prior = [-math.log(99)]
    assert predictor.logits.bias.tolist() == pytest.approx(prior * 3)
    assert predictor.quality[-1].bias.tolist() == pytest.approx(prior)
    assert not predictor.boxes.bias.any() and not predictor.offset[-1].bias.any()


def test_the_scale_multiplies_the_distances_not_their_logarithms():
    head = make_head()
    with torch.no_grad():
        head.scales.fill_(3.0)
        head.predictors["main"].boxes.weight.zero_()
        head.predictors["main"].boxes.bias.fill_(math.log(2.0))
    predictions = head(features())["main"]
    box = predictions.boxes_at(torch.tensor([0]), torch.tensor([8 * 12 + 6]))[0]
    point = predictions.priors.points[8 * 12 + 6]
    torch.testing.assert_close(box, torch.cat([point - 48, point + 48]), rtol=0, atol=2.0)


def test_deltas_of_anchors():
    head = make_head(coarse_codec=DeltaCodec(weights=(10.0, 10.0, 5.0, 5.0), clamp_both=True), box_activation="linear")
    nn.init.zeros_(head.predictors["main"].boxes.weight)
    predictions = head(features())["main"]
    prior = torch.tensor([8 * 12 + 6])
    torch.testing.assert_close(
        predictions.boxes_at(torch.zeros_like(prior), prior), predictions.priors.boxes[prior], rtol=0, atol=1.0
    )


def test_boxes_whose_sides_changed_places_can_be_the_coarse_ones():
    predictor = make_head(repair=True).predictors["main"]
    coarse = torch.arange(1.0, 25.0).view(1, 4, 2, 3)
    offset = torch.zeros(1, 8, 2, 3)
    assert torch.equal(predictor.refine(coarse, offset), coarse)
    offset[0, 4, 0, 0] = 50.0  # the right side is read outside, where it is 0
    repaired = predictor.refine(coarse, offset)
    assert torch.equal(repaired, coarse)
    predictor.repair = False
    assert predictor.refine(coarse, offset)[0, 2, 0, 0] == 0
    offset[0, 4, 0, 0] = 0
    offset[0, 0, 0, 0] = 1.0  # another place of the left side is no reason
    predictor.repair = True
    assert predictor.refine(coarse, offset)[0, 0, 0, 0] == coarse[0, 0, 1, 0]


@pytest.mark.parametrize("options", [{}, {"num_dcn": 2}, {"repair": True}])
def test_everything_is_trained_also_in_half_precision(options):
    head, x = make_head(**options), features()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predictions = head(x)["main"]
    assert all(m.dtype == torch.float32 for maps in predictions.maps.values() for m in maps)
    sum(m.square().sum() for maps in predictions.maps.values() for m in maps).backward()
    # At the start deformable convolutions of small maps learn no offsets of unused taps, but all have gradients.
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    assert all(p.grad.any() for name, p in head.named_parameters() if ".offset." not in name)
    assert all(level.grad.any() for level in x)


def test_first_convolutions_deformable():
    tower = make_head(num_dcn=2).predictors["main"].tower
    assert [type(layer) for layer in list(tower)[::3]] == [ModulatedDeformConv2d] * 2 + [nn.Conv2d]
    assert tower[0].offset.out_channels == 108
    assert tower[0].weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert tower[0].bias is None and not tower[0].offset.weight.any()


def test_a_detached_branch_trains_nothing_below_it():
    torch.manual_seed(0)

    def branch(detached):
        towers = {name: ConvTower(in_channels=16, num_convs=1, groups=4) for name in ("cls_tower", "box_tower")}
        options = {"in_channels": 16, "num_classes": 3, "priors": PointGenerator(), "box_activation": "exp"}
        return SeparatePredictor(**towers, detached=detached, **options)

    predictors = {"a": branch(True), "b": branch(False)}
    head = DenseHead(cls_tower=None, box_tower=None, predictors=predictors, level_scales=False)
    assert all(predictor.scales.tolist() == [1.0] * 5 for predictor in predictors.values())
    for name, trains in (("a", False), ("b", True)):
        x = features()
        sum(m.square().sum() for maps in head(x)[name].maps.values() for m in maps).backward()
        assert all(p.grad is not None for p in predictors[name].parameters())
        assert [level.grad is not None for level in x] == [trains] * 5
        head.zero_grad()
    with torch.no_grad():
        predictors["a"].scales[0] = 2.0
    assert not torch.equal(head(features())["a"].maps["boxes"][0], head(features())["b"].maps["boxes"][0])
