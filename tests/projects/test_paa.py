"""The recipes of PAA as the official configs, and MMDetection's, have them."""

import pytest
from detectron2.config import instantiate

from la_det import model_zoo
from la_det.modeling.backbone import LastLevelP6P7WithoutReLU
from la_det.modeling.layers import ModulatedDeformConv2d

# name: depth, iterations, drops
ROWS = {
    "paa_r50_fpn_1x_coco": (50, 90000, (60000, 80000)),
    "paa_r50_fpn_135k_coco": (50, 135000, (90000, 120000)),
    "paa_r101_fpn_2x_ms_coco": (101, 180000, (120000, 160000)),
    "paa_dcnv2_r101_fpn_2x_ms_coco": (101, 180000, (120000, 160000)),
}


@pytest.mark.parametrize("name", ROWS)
def test_row(name):
    depth, max_iter, steps = ROWS[name]
    config = model_zoo.get_config(f"PAA/{name}")
    stages = config.model.backbone.bottom_up.stages
    assert stages.depth == depth and stages.stride_in_1x1
    assert tuple(stages.get("dcn_stages", ())) == (("res3", "res4", "res5") if "dcnv2" in name else ())
    for tower in (config.model.head.cls_tower, config.model.head.box_tower):
        assert tower.get("last_dcn") == ("normal" if "dcnv2" in name else None)
    assert config.train.max_iter == max_iter
    rate = instantiate(config.lr_multiplier)
    expected = {0: 1 / 3, 499: 1 / 3, 500: 1, steps[0] - 1: 1, steps[0]: 0.1, steps[1]: 0.01, max_iter - 1: 0.01}
    assert {i: rate(i / max_iter) for i in expected} == pytest.approx(expected)
    resize = config.dataloader.train.mapper.augmentations[0]
    expected = ([640, 800], "range") if "2x_ms" in name else (800, "choice")
    assert (resize.short_edge_length, resize.sample_style) == expected
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (0.01, 1e-4)
    assert config.optimizer.params.bias_lr_factor == 2 and config.optimizer.params.weight_decay_bias == 0
    assert config.train.init_checkpoint.endswith(f"MSRA/R-{depth}.pkl")


def test_head_has_the_official_number_of_parameters():
    head = instantiate(model_zoo.get_config("PAA/paa_r50_fpn_1x_coco").model.head)
    assert sum(p.numel() for p in head.parameters()) == 4920666


def test_losses():
    (criterion,) = instantiate(model_zoo.get_config("PAA/paa_r50_fpn_1x_coco").model.criteria)
    assert criterion.losses["loss_cls"].weight == 1
    box = criterion.losses["loss_box_reg"]
    assert (box.weight, box.weighting, box.normaliser, box.floor) == (1.3, "iou", "weights", 0.0)
    assert criterion.losses["loss_iou"].weight == 0.5


@pytest.mark.slow
def test_dcnv2_has_its_layers():
    model = instantiate(model_zoo.get_config("PAA/paa_dcnv2_r101_fpn_2x_ms_coco").model)
    deformable = {name for name, layer in model.named_modules() if isinstance(layer, ModulatedDeformConv2d)}
    blocks = {f"backbone.bottom_up.res{3 + i}.{k}.conv2" for i, n in enumerate((4, 23, 3)) for k in range(n)}
    assert deformable == blocks | {"head.cls_tower.9", "head.box_tower.9"}


def test_mmdetections_recipe():
    config = model_zoo.get_config("PAA/paa_mmdet_r50_fpn_1x_coco")
    rate = instantiate(config.lr_multiplier)
    expected = {0: 0.001, 500: 1, 58639: 1, 58640: 0.1, 80630: 0.01}
    assert {i: rate(i / 87960) for i in expected} == pytest.approx(expected)
    assert config.dataloader.train.mapper.image_format == config.model.input_format == "RGB"
    assert config.model.head.predictors.main.priors.offset == 0 and not config.model.head.cls_tower.bias
    assert config.model.backbone.top_block._target_ is LastLevelP6P7WithoutReLU
