import pytest
from detectron2.solver.build import get_default_optimizer_params
from torch import nn

from la_det.engine.param_groups import param_groups


@pytest.fixture
def model():
    backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1, bias=False))
    backbone[2].weight.requires_grad = False
    model = nn.ModuleDict({"backbone": backbone, "head": nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4))})
    model["shared"] = model["head"][0]
    return model


def named(model, groups):
    """(lr, weight decay) of every parameter name."""
    names = {p: name for name, p in model.named_parameters()}
    return {names[p]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


def test_one_rule_each(model):
    groups = param_groups(
        model,
        lr=0.1,
        weight_decay=1e-4,
        weight_decay_norm=0.0,
        weight_decay_bias=1e-5,
        bias_lr_factor=2,
        lr_factors={"backbone": 0.5},
    )
    assert named(model, groups) == {
        "backbone.0.weight": (0.05, 1e-4),
        "backbone.0.bias": (0.1, 1e-5),
        "backbone.1.weight": (0.05, 0.0),
        "backbone.1.bias": (0.1, 1e-5),
        "head.0.weight": (0.1, 1e-4),
        "head.0.bias": (0.2, 1e-5),
        "head.1.weight": (0.1, 0.0),
        "head.1.bias": (0.2, 1e-5),
    }


def test_norm_biases_follow_the_norm_layer_without_a_rule_for_biases(model):
    groups = named(model, param_groups(model, lr=0.1, weight_decay=1e-4, weight_decay_norm=0.0))
    assert groups["head.1.bias"] == (0.1, 0.0)
    assert groups["head.0.bias"] == (0.1, 1e-4)


def test_norm_biases_can_be_left_out_of_the_rules_for_biases(model):
    rules = dict(weight_decay_bias=0.0, bias_lr_factor=2.0, norm_biases_too=False)
    groups = named(model, param_groups(model, lr=0.1, weight_decay=1e-4, **rules))
    assert groups["head.1.bias"] == (0.1, 1e-4)
    assert groups["head.0.bias"] == (0.2, 0.0)


def test_weight_decay_by_name(model):
    rules = dict(weight_decay_norm=0.0, weight_decay_bias=0.0, weight_decays={"head.1": 0.3, "head": 0.2})
    groups = named(model, param_groups(model, lr=0.1, weight_decay=1e-4, **rules))
    assert groups["head.1.bias"] == groups["head.1.weight"] == (0.1, 0.3)
    assert groups["head.0.bias"] == groups["head.0.weight"] == (0.1, 0.2)
    assert groups["backbone.0.weight"] == (0.1, 1e-4)


def test_same_as_detectron2(model):
    rules = dict(weight_decay_norm=3e-4, bias_lr_factor=2.0, weight_decay_bias=0.0)
    theirs = get_default_optimizer_params(model, base_lr=0.1, weight_decay=1e-4, **rules)
    assert named(model, param_groups(model, lr=0.1, weight_decay=1e-4, **rules)) == named(model, theirs)


def test_few_groups_without_frozen_or_repeated_parameters(model):
    groups = param_groups(model, lr=0.1, weight_decay=1e-4)
    (group,) = groups
    assert len(group["params"]) == len(set(group["params"])) == 8
    assert len(param_groups(model, lr=0.1, weight_decay=1e-4, weight_decay_norm=0.0)) == 2
