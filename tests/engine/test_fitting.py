"""Recipes fitted to one's own data."""

import logging

import pytest
import torch
from detectron2.config import instantiate

from la_det.engine.fitting import Fitting, auto_scale_lr
from la_det.engine.setup import load_config
from la_det.errors import UserError
from tests.tiny_coco import write_tiny_coco

RECIPE = "POTO/poto_r50_fpn_3x_ms_coco"


@pytest.fixture(scope="module")
def option(tmp_path_factory):
    folder = write_tiny_coco(tmp_path_factory.mktemp("data"))
    return f"coco:{folder}/images,{folder}/train.json,{folder}/images,{folder}/val.json"


def fitted(*overrides, config=RECIPE, **wishes):
    return load_config(config, overrides, Fitting(**wishes))


def short_sides(mapper):
    return [node.short_edge_length for node in mapper.augmentations if "short_edge_length" in node]


def test_a_small_set_does_not_get_the_length_of_coco(option, caplog):
    caplog.set_level(logging.INFO)
    cfg = fitted(dataset=option)
    assert cfg.train.max_iter == 2000 and cfg.model.num_classes == 2
    # Of the 12 images, 10 have objects.
    assert (
        "Schedule: 2000 iterations, 3200.0 epochs of 10 images in batches of 16; the recipe has 36.8 epochs of a "
        "larger set; --epochs changes it"
    ) in caplog.text


def test_epochs(option):
    cfg = fitted(dataset=option, epochs=320)
    assert cfg.train.max_iter == 200
    assert cfg.train.eval_period == cfg.train.checkpointer.period == cfg.train.diagnostics_period == 20
    assert cfg.lr_multiplier.warmup_length == pytest.approx(0.1)
    assert fitted(dataset=option, epochs=32000).lr_multiplier.warmup_length * 20000 == pytest.approx(1000)
    assert fitted(dataset=option, epochs=0.01).train.max_iter == 1


def test_a_smaller_batch_takes_more_and_smaller_steps(option):
    cfg = fitted(dataset=option, batch=4)
    assert cfg.dataloader.train.total_batch_size == 4 and cfg.optimizer.lr == 0.01 / 4
    assert cfg.train.max_iter == 8000


def test_a_batch_alone_keeps_the_epochs():
    cfg = fitted(batch=4)
    assert (cfg.train.max_iter, cfg.optimizer.lr) == (4 * 270000, 0.01 / 4)
    assert not cfg.train.auto_scale_lr.enabled
    cfg = fitted("train.auto_scale_lr.enabled=True", batch=4)
    auto_scale_lr(cfg)
    assert (cfg.train.max_iter, cfg.optimizer.lr) == (4 * 270000, 0.01 / 4), "nothing is scaled twice"


@pytest.mark.parametrize(
    ("overrides", "wishes", "iterations", "lr"),
    [
        ((), {"epochs": 12}, 30, 0.01 / 4),
        ((), {}, 8000, 0.01 / 4),
        (("optimizer.lr=0.4",), {"epochs": 12}, 30, 0.1),
        (("train.max_iter=100",), {}, 400, 0.01 / 4),
        (("train.auto_scale_lr.reference_batch_size=8",), {"epochs": 12}, 30, 0.01 / 2),
    ],
)
def test_auto_scaling_scales_once(option, overrides, wishes, iterations, lr):
    """With a fitting as without one, it scales what the user sets; the fitted epochs stay."""
    scaling = ("dataloader.train.total_batch_size=4", "train.auto_scale_lr.enabled=True")
    cfg = fitted(*scaling, *overrides, dataset=option, **wishes)
    for _ in range(2):
        assert (cfg.train.max_iter, cfg.optimizer.lr) == (iterations, pytest.approx(lr))
        auto_scale_lr(cfg)  # as `setup` does


def test_what_the_user_sets_wins(option):
    cfg = fitted("train.max_iter=7", "optimizer.lr=0.5", "train.eval_period=3", dataset=option, batch=4)
    assert cfg.train.max_iter == 7 and cfg.optimizer.lr == 0.5 and cfg.train.eval_period == 3
    assert fitted("dataloader.train.total_batch_size=2", dataset=option, epochs=1).train.max_iter == 5


def test_evaluations_that_are_off_stay_off(option):
    assert fitted(config="POTO/poto_r18_fpn_shapes_tiny", dataset=option, epochs=9).train.eval_period == 0


def test_image_size_keeps_ratios():
    cfg = fitted(image_size=640)
    assert short_sides(cfg.dataloader.train.mapper) == [[512, 538, 563, 589, 614, 640]]
    assert short_sides(cfg.dataloader.test.mapper) == [640]
    assert cfg.dataloader.test.mapper.augmentations[0].max_size == 1066
    cfg = fitted(config="DATE/date_f_r50_fpn_36ep_ms_coco", image_size=400)
    crop = cfg.dataloader.train.mapper.augmentations[1].tfm_or_aug.augs
    assert crop[0].short_edge_length == [200, 250, 300] and crop[1].crop_size == [192, 300]
    instantiate(cfg.dataloader.train.mapper)


def test_image_size_where_the_recipe_does_not_resize():
    mapper = fitted(config="POTO/poto_r18_fpn_shapes_tiny", image_size=96).dataloader.train.mapper
    assert short_sides(mapper) == [96] and mapper.augmentations[0].max_size == 160


@pytest.mark.parametrize("config", [RECIPE, "DATE/date_r_r50_fpn_12ep_coco", "POTO/poto_r18_fpn_shapes_tiny"])
@pytest.mark.parametrize(
    ("name", "weights", "mean"),
    [
        ("resnet18", "torchvision://resnet18", 123.675),
        ("timm:convnext_pico", "timm://convnext_pico", 123.675),
        ("timm:vit_tiny_r_s16_p8_224", "", 127.5),
    ],
)
def test_backbone(config, name, weights, mean):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    cfg = fitted(config=config, backbone=name)
    assert cfg.model.pixel_mean[0] == pytest.approx(mean) and cfg.dataloader.test.mapper.image_format == "RGB"
    if not weights:
        return
    assert cfg.train.init_checkpoint == weights
    with torch.device("meta"):
        model = instantiate(cfg.model)
    assert len(model.backbone.output_shape()) == 5


@pytest.mark.parametrize(
    ("config", "wishes", "message"),
    [
        (RECIPE, {"backbone": "resnet19"}, "--backbone resnet19: there are resnet18, .* and timm:"),
        (RECIPE, {"backbone": "timm:convnext_huger"}, "timm has no model of this name; it has convnext_"),
        ("LLA/faster_rcnn_r50_fpn_30k_crowdhuman", {"backbone": "resnet18"}, "has no FPN from P3 to P7"),
        (RECIPE, {"batch": 0}, "--batch 0: it has to be positive"),
        (RECIPE, {"image_size": -1}, "--image-size -1: it has to be positive"),
        (RECIPE, {"epochs": 0.0}, "--epochs 0.0: it has to be positive"),
    ],
)
def test_impossible_wishes(config, wishes, message):
    if "timm" in str(wishes):
        pytest.importorskip("timm")
    with pytest.raises(UserError, match=message):
        fitted(config=config, **wishes)


def test_weights_to_begin_with():
    assert fitted(weights="~/a b/größe=1.pth").train.init_checkpoint == "~/a b/größe=1.pth"
