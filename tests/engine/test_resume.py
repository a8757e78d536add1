import copy

import pytest
from detectron2.config import LazyConfig

from la_det import model_zoo
from la_det.config import read_saved_config
from la_det.engine.resume import changes, check_and_show
from la_det.errors import UserError

NAME = "POTO/poto_r18_fpn_shapes_tiny"


@pytest.fixture
def saved(tmp_path):
    LazyConfig.save(model_zoo.get_config(NAME), str(tmp_path / "config.yaml"))
    return read_saved_config(tmp_path / "config.yaml")


def test_a_saved_config_is_the_same(saved):
    assert changes(saved, model_zoo.get_config(NAME)) == []


def test_every_change_is_said(saved, caplog):
    now = model_zoo.get_config(NAME)
    now.optimizer.update(lr=0.5, betas=[0.8, 0.9])
    now.train.update(max_iter=5000, seed=3)
    now.train.ema.enabled = True
    now.dataloader.train.mapper.augmentations = []
    now.dataloader.train.dataset.names = "other"
    found = {change.key: change for change in changes(saved, now)}
    assert (found["optimizer.lr"].then, found["optimizer.lr"].now) == (0.002, 0.5)
    assert found["train.seed"].happens == "applies: other batches from here on"
    assert "begins at the checkpoint's weights" in found["train.ema.enabled"].happens
    assert "stretched" in found["train.max_iter"].happens
    assert {"optimizer.betas", "dataloader.train.dataset.names", "model.max_iter"} <= found.keys()
    assert any(key.startswith("dataloader.train.mapper.augmentations") for key in found)
    check_and_show(found.values(), "model_0000009.pth")
    assert "| optimizer.lr " in caplog.text and "not the one that model_0000009.pth was trained with" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        lambda cfg: cfg.model.update(pixel_mean=[1.0, 2.0, 3.0]),
        lambda cfg: cfg.model.update(input_format="BGR"),
        lambda cfg: cfg.dataloader.train.mapper.update(image_format="BGR"),
        lambda cfg: cfg.optimizer.update(_target_="la_det.engine.optimizers.SGD"),
    ],
)
def test_what_the_weights_or_the_state_cannot_bear_is_refused(saved, change):
    now = copy.deepcopy(saved)
    change(now)
    with pytest.raises(UserError, match="with which no run can go on; .* train.init_checkpoint=last.pth"):
        check_and_show(changes(saved, now), "last.pth")


OF = "{}_r18_fpn_shapes_tiny"


@pytest.mark.parametrize(
    ("then", "now", "key"),
    [
        ("FCOS/fcos", "ATSS/atss", "criteria.0.matcher._target_"),
        ("ATSS/atss", "FCOS/fcos", "criteria.0.matcher._target_"),
        ("POTO/poto", "DATE/poto_tal", "criteria."),
        ("DATE/date_atss", "DATE/date_f", "criteria.1."),
        ("POTO/poto_3dmf", "POTO/poto_3dmf_aux", "criteria.1._target_"),
    ],
)
def test_another_scheme_is_refused(tmp_path, then, now, key):
    LazyConfig.save(model_zoo.get_config(OF.format(then)), str(tmp_path / "config.yaml"))
    saved = read_saved_config(tmp_path / "config.yaml")
    with pytest.raises(UserError, match=rf"--resume: model\.{key}.* was .* and is .*, with which no run can go on"):
        check_and_show(changes(saved, model_zoo.get_config(OF.format(now))), "last.pth")


PREDICTOR = "model.head.predictors.main"


@pytest.mark.parametrize(
    ("override", "refused"),
    [
        ("model._target_=la_det.modeling.Other", True),
        ("model.backbone._target_=x.Y", True),
        ("model.backbone.top_block.in_feature=res5", True),
        ("model.criteria.0.losses.loss_cls._target_=x.Y", True),
        (f"{PREDICTOR}._target_=x.Y", True),
        (f"{PREDICTOR}.priors._target_=la_det.structures.AnchorGenerator", True),
        (f"{PREDICTOR}.priors.strides=[4, 8, 16, 32, 64]", True),
        (f"{PREDICTOR}.codec={{_target_: la_det.structures.DeltaCodec}}", True),
        (f"{PREDICTOR}.box_activation=exp", True),
        ("model.criteria.0.matcher._target_=elsewhere.POTO", False),
        ("model.criteria.0.matcher.alpha=0.5", False),
        ("model.criteria.0.losses.loss_cls.weight=0.5", False),
        ("model.inference.nms_threshold=0.6", False),
        ("model.inference.candidates._target_=x.Y", False),
        (f"{PREDICTOR}.prior_prob=0.1", False),
        (f"+{PREDICTOR}.priors.of_a_newer_version=1", False),
    ],
)
def test_what_makes_another_detector_is_refused_and_options_are_not(saved, override, refused):
    now = LazyConfig.apply_overrides(copy.deepcopy(saved), [override])
    found = changes(saved, now)
    assert found and any(change.happens == "refused" for change in found) == refused


def test_parts_that_are_left_out_and_written_are_the_same(saved):
    """None stands for a default."""
    parts = [f"{PREDICTOR}.codec={{_target_: la_det.structures.LTRBCodec}}"]
    parts += [
        f"+{place}.score={{_target_: la_det.structures.Score}}" for place in ("model.inference", "model.criteria.0")
    ]
    now = LazyConfig.apply_overrides(copy.deepcopy(saved), [part.replace("+", "++") for part in parts])
    assert changes(saved, now) == []


def test_another_loss_term_beside_the_others_goes_on(saved):
    term = "{_target_: la_det.modeling.criteria.CenternessLoss}"
    now = LazyConfig.apply_overrides(copy.deepcopy(saved), [f"++model.criteria.0.losses.loss_more={term}"])
    for before, after in ((saved, now), (now, saved)):
        found = changes(before, after)
        assert found and all(change.happens != "refused" for change in found)


def test_a_mapper_of_ones_own_without_an_image_format_goes_on():
    then = model_zoo.get_config(NAME)
    then.dataloader.test.mapper.image_format = str(then.dataloader.train.mapper.image_format)
    now = copy.deepcopy(then)
    del now.dataloader.train.mapper.image_format
    found = {change.key: change.happens for change in changes(copy.deepcopy(then), now)}
    assert found["dataloader.train.mapper.image_format"] == "applies: other batches from here on"
    assert "refused" not in found.values()
    now.dataloader.train.mapper.image_format = "L"
    assert "refused" in {change.happens for change in changes(then, now)}


def test_runs_with_torchs_sgd_go_on():
    now = model_zoo.get_config("FCOS/fcos_r50_fpn_3x_ms_coco")
    then = copy.deepcopy(now)
    then.optimizer._target_ = "torch.optim.SGD"
    check_and_show(changes(then, now), "last.pth")
