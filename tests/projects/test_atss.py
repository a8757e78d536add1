"""The recipes of ATSS and Dynamic ATSS as the official configs have them."""

import pytest
import torch
from detectron2.config import instantiate

from la_det import model_zoo
from la_det.modeling.layers import ModulatedDeformConv2d

ONE_X, TWO_X = (90000, (60000, 80000)), (180000, (120000, 160000))
# name: depth, groups, width, deformable stages, schedule
ROWS = {
    "r50_fpn_1x_coco": (50, 1, 64, (), ONE_X),
    "dcnv2_r50_fpn_1x_coco": (50, 1, 64, ("res3", "res4", "res5"), ONE_X),
    "r101_fpn_1x_coco": (101, 1, 64, (), ONE_X),
    "dcnv2_r101_fpn_1x_coco": (101, 1, 64, ("res3", "res4", "res5"), ONE_X),
    "r101_fpn_2x_ms_coco": (101, 1, 64, (), TWO_X),
    "dcnv2_r101_fpn_2x_ms_coco": (101, 1, 64, ("res3", "res4", "res5"), TWO_X),
    "x101_32x8d_fpn_2x_ms_coco": (101, 32, 8, (), TWO_X),
    "dcnv2_x101_32x8d_fpn_2x_ms_coco": (101, 32, 8, ("res4", "res5"), TWO_X),
    "x101_64x4d_fpn_2x_ms_coco": (101, 64, 4, (), TWO_X),
    "dcnv2_x101_64x4d_fpn_2x_ms_coco": (101, 64, 4, ("res4", "res5"), TWO_X),
}
PREFIXES = {"atss": "ATSS/atss_", "dynamic_atss": "DynamicATSS/dynamic_atss_"}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("prefix", PREFIXES.values())
def test_row(prefix, row):
    depth, groups, width, stages, (max_iter, steps) = ROWS[row]
    config = model_zoo.get_config(prefix + row)
    built = config.model.backbone.bottom_up.stages
    assert built.depth == depth
    assert (built.get("num_groups", 1), built.get("width_per_group", 64)) == (groups, width)
    # MSRA's ResNets stride in the 1x1 convolution, FAIR's ResNeXts in the 3x3 one.
    assert built.get("stride_in_1x1", False) == (groups == 1)
    assert tuple(built.get("dcn_stages", ())) == stages
    for tower in (config.model.head.cls_tower, config.model.head.box_tower):
        assert tower.get("last_dcn") == ("normal" if stages else None)

    assert config.train.max_iter == max_iter
    rate = instantiate(config.lr_multiplier)
    expected = {0: 1 / 3, 499: 1 / 3, 500: 1, steps[0] - 1: 1, steps[0]: 0.1, steps[1]: 0.01, max_iter - 1: 0.01}
    assert {i: rate(i / max_iter) for i in expected} == pytest.approx(expected)
    resize = config.dataloader.train.mapper.augmentations[0]
    expected = ([640, 800], "range") if "2x_ms" in row else (800, "choice")
    assert (resize.short_edge_length, resize.sample_style) == expected
    assert resize.max_size == 1333
    assert config.dataloader.train.total_batch_size == 16


def test_the_ten_rows_are_all():
    names = model_zoo.list()
    for prefix in PREFIXES.values():
        coco = [name for name in names if name.startswith(prefix) and name.endswith("_coco") and "mmdet" not in name]
        assert sorted(coco) == sorted(prefix + row for row in ROWS)


def test_biases_learn_twice_as_fast_without_decay():
    config = model_zoo.get_config("ATSS/atss_r18_fpn_shapes_tiny")
    config.optimizer = model_zoo.get_config("ATSS/atss_r50_fpn_1x_coco").optimizer
    model = instantiate(config.model)
    config.optimizer.params.model = model
    rules = {
        parameter: (group["lr"], group["weight_decay"])
        for group in instantiate(config.optimizer).param_groups
        for parameter in group["params"]
    }
    for name, parameter in model.named_parameters():
        assert rules[parameter] == ((0.02, 0.0) if name.endswith("bias") else (0.01, 1e-4)), name


@pytest.mark.slow
def test_dcnv2_starts_as_in_the_official_code():
    """Offsets: kaiming uniform in the backbone, N(0, 0.01) in the head; nowhere a bias."""
    torch.manual_seed(0)
    model = instantiate(model_zoo.get_config("ATSS/atss_dcnv2_r50_fpn_1x_coco").model)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, ModulatedDeformConv2d)}
    in_head = {name: layer for name, layer in layers.items() if name.startswith("head.")}
    assert sorted(in_head) == ["head.box_tower.9", "head.cls_tower.9"]
    assert len(layers) - len(in_head) == 4 + 6 + 3
    for name, layer in layers.items():
        fan_in = 9 * layer.in_channels
        std = 0.01 if name in in_head else fan_in**-0.5
        assert layer.offset.weight.std().item() == pytest.approx(std, rel=0.05)
        assert not layer.offset.bias.any()


def test_crowdhuman_recipe():
    config = model_zoo.get_config("ATSS/atss_r50_fpn_30k_crowdhuman")
    rate = instantiate(config.lr_multiplier)
    expected = {0: 0.001, 1000: 1, 19999: 1, 20000: 0.1, 25000: 0.01}
    assert {i: rate(i / 30000) for i in expected} == pytest.approx(expected)
    assert config.model.num_classes == 1
    assert config.dataloader.train.mapper.augmentations[0].max_size == 1400
    assert config.dataloader.test.mapper.augmentations[0].max_size == 1400
    assert config.optimizer.params.weight_decay_norm == 0.0
    assert config.model.inference.max_detections == 500
