"""The recipes of AutoAssign as the official config, and MMDetection's, have them."""

import pytest
from detectron2.config import instantiate

from la_det import model_zoo

OFFICIAL, MMDETECTION = "AutoAssign/autoassign_r50_fpn_1x_coco", "AutoAssign/autoassign_mmdet_r50_fpn_1x_coco"


@pytest.mark.parametrize(
    ("name", "max_iter", "drops"), [(OFFICIAL, 90000, (60000, 80000)), (MMDETECTION, 87960, (58640, 80630))]
)
def test_recipe(name, max_iter, drops):
    config = model_zoo.get_config(name)
    assert config.train.max_iter == max_iter
    rate = instantiate(config.lr_multiplier)
    expected = {0: 0.001, 1000: 1, drops[0] - 1: 1, drops[0]: 0.1, drops[1]: 0.01}
    assert {i: rate(i / max_iter) for i in expected} == pytest.approx(expected)
    assert config.dataloader.train.mapper.augmentations[0].short_edge_length == 800
    assert config.dataloader.train.mapper.image_format == config.model.input_format == "BGR"
    assert config.train.init_checkpoint.endswith("MSRA/R-50.pkl")
    assert config.train.clip_grad.max_norm == 0
    assert config.model.pixel_mean[0] == (103.53 if name == OFFICIAL else 102.9801)
    assert config.model.backbone.top_block.in_feature == "res5"
    assert config.model.head.predictors.main.priors.offset == 0


def test_head_has_the_official_number_of_parameters():
    head = instantiate(model_zoo.get_config(OFFICIAL).model.head)
    assert sum(p.numel() for p in head.parameters()) == 4920666
    predictor = head.predictors["main"]
    assert predictor.logits.bias[0].item() == pytest.approx(-3.8918, abs=1e-4)
    assert (predictor.boxes.bias == 4).all() and not predictor.quality.bias.any()


@pytest.mark.parametrize("name", [OFFICIAL, MMDETECTION])
def test_the_centre_prior_decays_and_learns_as_other_weights(name):
    config = model_zoo.get_config(name)
    model = instantiate(config.model)
    config.optimizer.params.model = model
    rules = {p: (g["lr"], g["weight_decay"]) for g in instantiate(config.optimizer).param_groups for p in g["params"]}
    matcher = model.criteria[0].matcher
    assert matcher.mu.shape == matcher.sigma.shape == (80, 2)
    assert not matcher.mu.any() and (matcher.sigma == 1).all()
    assert rules[matcher.mu] == rules[matcher.sigma] == (0.01, 1e-4)
    assert rules[model.head.cls_tower[1].weight] == rules[model.head.cls_tower[1].bias] == (0.01, 0.0)


def test_the_centre_prior_follows_the_number_of_classes_and_is_not_exported():
    config = model_zoo.get_config(OFFICIAL).model
    config.num_classes = 3
    model = instantiate(config)
    assert model.criteria[0].matcher.mu.shape == (3, 2)
    assert model.training_only_keys() == {"criteria.0.matcher.mu", "criteria.0.matcher.sigma"}
    assert not any(key.startswith("criteria") for key in model.inference_only().state_dict())
