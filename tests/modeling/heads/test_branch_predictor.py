import math

import pytest
import torch

from la_det.modeling.heads import (
    BranchPredictor,
    ControlledPredictor,
    ConvTower,
    DenseHead,
    FilteredPredictor,
    XavierPredictor,
)
from la_det.modeling.layers import MaxFiltering
from la_det.structures import AnchorGenerator, DeltaCodec, PointGenerator

SIZES = [(4, 5), (2, 3), (1, 2), (1, 1), (1, 1)]
STRIDES = (8, 16, 32, 64, 128)


def features(seed: int = 0, channels: int = 8) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, channels, *size, generator=generator) for size in SIZES]


def make_predictor(kind: type[BranchPredictor] = BranchPredictor, **options) -> BranchPredictor:
    torch.manual_seed(0)
    return kind(**{"in_channels": 8, "num_classes": 3, "priors": PointGenerator()} | options)


def shapes(maps: list[torch.Tensor]) -> list[tuple[int, ...]]:
    return [tuple(x.shape) for x in maps]


def test_maps():
    predictions = make_predictor()(features(0), features(1), [None] * 5)
    assert set(predictions.maps) == {"logits", "boxes"}
    assert shapes(predictions.maps["logits"]) == [(2, 3, *size) for size in SIZES]
    assert shapes(predictions.maps["boxes"]) == [(2, 4, *size) for size in SIZES]
    assert predictions.priors.grid_sizes == tuple(SIZES)


def test_several_priors_per_cell():
    priors = AnchorGenerator(sizes=(4.0, 8.0))
    predictor = make_predictor(priors=priors, codec=DeltaCodec(), box_activation="linear", quality_on="cls")
    predictions = predictor(features(0), features(1), [None] * 5)
    assert [predictions.maps[name][0].shape[1] for name in ("logits", "boxes", "quality")] == [6, 8, 2]
    assert predictions.num_classes == 3
    assert len(predictions.priors) == 2 * sum(h * w for h, w in SIZES)


@pytest.mark.parametrize("prior_prob", [0.01, 0.02])
def test_initial_weights(prior_prob):
    predictor = make_predictor(in_channels=256, quality_on="box", prior_prob=prior_prob)
    for conv in (predictor.logits, predictor.boxes, predictor.quality):
        assert conv.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert predictor.logits.bias.tolist() == pytest.approx([math.log(prior_prob / (1 - prior_prob))] * 3)
    assert not predictor.boxes.bias.any()
    assert not predictor.quality.bias.any()


def test_initial_biases():
    predictor = make_predictor(quality_on="box", box_bias=4.0, quality_bias=-2.5)
    assert predictor.boxes.bias.unique() == 4 and predictor.quality.bias.unique() == -2.5
    assert not make_predictor(quality_on="box").quality.bias.any()


def test_xavier_keeps_the_bias_of_the_box_convolution():
    predictor = make_predictor(XavierPredictor, prior_prob=0.01)
    assert len(predictor.boxes.bias.unique()) == 4 and predictor.boxes.bias.abs().max() <= (9 * 8) ** -0.5
    assert predictor.logits.bias.unique().item() == pytest.approx(-math.log(99))


def test_box_activations():
    x, scales = features(1), [torch.tensor(2.0 + i) for i in range(5)]
    raw = [conv * scale for conv, scale in zip(map(make_predictor().boxes, x), scales, strict=True)]
    expected = {
        "linear": raw,
        "relu_stride": [y.clamp(min=0) * s for y, s in zip(raw, STRIDES, strict=True)],
        "exp": [y.exp() for y in raw],
    }
    for activation, maps in expected.items():
        boxes = make_predictor(box_activation=activation)(features(0), x, scales).maps["boxes"]
        for actual, wanted in zip(boxes, maps, strict=True):
            torch.testing.assert_close(actual, wanted)


@pytest.mark.parametrize("tower", ["cls", "box"])
def test_quality_reads_one_tower(tower):
    predictor = make_predictor(quality_on=tower)
    maps = {"cls": features(0), "box": features(1)}
    quality = predictor(maps["cls"], maps["box"], [None] * 5).maps["quality"]
    for actual, x in zip(quality, maps[tower], strict=True):
        assert torch.equal(actual, predictor.quality(x))


def test_filter_reads_the_filtered_box_tower():
    predictor = make_predictor(FilteredPredictor, max_filtering=MaxFiltering(channels=8, groups=4))
    filter_maps = predictor(features(0), features(1), [None] * 5).maps["filter"]
    expected = [predictor.filter(x) for x in predictor.max_filtering(features(1))]
    assert all(torch.equal(a, b) for a, b in zip(filter_maps, expected, strict=True))
    assert shapes(filter_maps) == [(2, 1, *size) for size in SIZES]


def test_controller_reads_the_box_tower():
    predictor = make_predictor(ControlledPredictor, controller_channels=169, quality_on="box")
    predictions = predictor(features(0), features(1), [None] * 5)
    assert list(predictions.maps) == ["logits", "boxes", "quality", "controller"]
    for actual, x in zip(predictions.maps["controller"], features(1), strict=True):
        assert torch.equal(actual, predictor.controller(x)) and actual.shape[1] == 169
    assert predictor.controller.weight.std().item() == pytest.approx(0.01, rel=0.05)


def test_single_precision_under_autocast():
    predictor = make_predictor(FilteredPredictor, quality_on="box", max_filtering=MaxFiltering(channels=8, groups=4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predictions = predictor(features(0), features(1), [torch.tensor(1.0)] * 5)
    for levels in predictions.maps.values():
        assert all(x.dtype == torch.float32 for x in levels)


def make_head(**options) -> DenseHead:
    torch.manual_seed(0)
    towers = {name: ConvTower(in_channels=8, num_convs=1, groups=4) for name in ("cls_tower", "box_tower")}
    predictors = {"main": make_predictor(), "other": make_predictor(quality_on="cls")}
    return DenseHead(**towers, predictors=predictors, **options)


def test_branches_share_towers_and_scales():
    head, x = make_head(), features()
    with torch.no_grad():
        head.scales.copy_(torch.arange(1.0, 6.0))
    outputs = head(x)
    assert list(outputs) == ["main", "other"]
    assert list(head(x, ["other"])) == ["other"]
    for name, predictor in head.predictors.items():
        expected = predictor(list(map(head.cls_tower, x)), list(map(head.box_tower, x)), torch.arange(1.0, 6.0))
        for key, levels in expected.maps.items():
            assert all(torch.equal(a, b) for a, b in zip(levels, outputs[name].maps[key], strict=True))


def test_level_scales_are_an_option():
    assert make_head().scales.tolist() == [1.0] * 5
    assert make_head(level_scales=False).scales is None
    make_head(level_scales=False)(features())


def test_wrong_number_of_levels():
    with pytest.raises(ValueError, match="built for 5 levels, the backbone gave 4"):
        make_head()(features()[:4])
