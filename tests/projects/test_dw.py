"""DW's configs are the recipes of the paper's repository."""

import pytest
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d

from la_det import model_zoo
from la_det.modeling.layers import EvalBatchNorm2d, ModulatedDeformConv2d


@pytest.mark.parametrize(
    ("name", "max_iter", "drops", "sides", "depth", "refine"),
    [
        ("dw_r50_fpn_1x_coco", 87960, (58640, 80630), 800, 50, True),
        ("dw_worefine_r50_fpn_1x_coco", 87960, (58640, 80630), 800, 50, False),
        ("dw_r101_fpn_1x_coco", 87960, (58640, 80630), 800, 101, True),
        ("dw_r50_fpn_2x_ms_coco", 175920, (117280, 161260), [480, 960], 50, True),
        ("dw_dcnv2_r50_fpn_2x_ms_coco", 175920, (117280, 161260), [480, 960], 50, True),
        ("dw_worefine_r101_fpn_2x_ms_coco", 175920, (117280, 161260), [480, 960], 101, False),
    ],
)
def test_recipe(name, max_iter, drops, sides, depth, refine):
    config = model_zoo.get_config(f"DW/{name}")
    assert config.train.max_iter == max_iter
    multiplier = instantiate(config.lr_multiplier)
    values = [multiplier(i / max_iter) for drop in drops for i in (drop - 1, drop)]
    assert values == pytest.approx([1, 0.1, 0.1, 0.01])
    resize = config.dataloader.train.mapper.augmentations[0]
    assert (resize.short_edge_length, resize.max_size) == (sides, 1333)
    assert resize.sample_style == ("choice" if sides == 800 else "range")
    assert config.dataloader.train.mapper.image_format == config.model.input_format == "RGB"
    assert config.train.init_checkpoint.endswith({50: "torchvision/R-50.pkl", 101: "torchvision://resnet101"}[depth])
    assert config.model.backbone.bottom_up.stages.depth == depth
    assert ("refinement" in config.model.head.predictors.main) == refine
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (0.01, 1e-4)
    assert (config.train.clip_grad.max_norm, config.train.amp.enabled) == (0, False)


@pytest.mark.parametrize(("name", "size"), [("dw_r50_fpn_1x_coco", 4939106), ("dw_worefine_r50_fpn_1x_coco", 4920666)])
def test_head_has_the_official_number_of_parameters(name, size):
    head = instantiate(model_zoo.get_config(f"DW/{name}").model).head
    assert sum(p.numel() for p in head.parameters()) == size


def test_norms_are_trained_from_res3_on():
    backbone = instantiate(model_zoo.get_config("DW/dw_r50_fpn_1x_coco").model.backbone)
    norms = {EvalBatchNorm2d: set(), FrozenBatchNorm2d: set()}
    for name, module in backbone.bottom_up.named_modules():
        if type(module) in norms:
            norms[type(module)].add(name.split(".")[0])
    assert norms == {EvalBatchNorm2d: {"res3", "res4", "res5"}, FrozenBatchNorm2d: {"stem", "res2"}}


def test_deformable_convolutions_of_the_dcn_variant():
    config = model_zoo.get_config("DW/dw_dcnv2_r50_fpn_2x_ms_coco").model
    model = instantiate(config)
    deformable = {name for name, m in model.named_modules() if isinstance(m, ModulatedDeformConv2d)}
    blocks = {f"backbone.bottom_up.res{3 + i}.{k}.conv2" for i, n in enumerate((4, 6, 3)) for k in range(n)}
    assert deformable == blocks | {"head.cls_tower.9", "head.box_tower.9"}
    assert not any(model.get_submodule(name).offset.weight.any() for name in deformable)
