"""configs/common: schedules, optimizers and data as the recipes want them."""

import runpy
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.solver import LRMultiplier
from omegaconf import OmegaConf

from la_det import model_zoo
from la_det.matchers import FCOS

COMMON = Path(__file__).parents[2] / "configs" / "common"


def load(file: str, key: str):
    return LazyConfig.load(str(COMMON / file), key)


def test_3x_is_that_of_the_poto_card():
    """lr (0.001 (1 - a) + a), a = it / 1000, in the warm-up; tenths at 210k and 250k of 270k iterations."""
    schedule = instantiate(load("schedules.py", "lr_multiplier_3x"))
    for it in (0, 1, 250, 999):
        a = it / 1000
        assert schedule(it / 270000) == pytest.approx(0.001 * (1 - a) + a, rel=1e-9)
    steps = {1000: 1, 209999: 1, 210000: 0.1, 249999: 0.1, 250000: 0.01, 269999: 0.01}
    assert {it: pytest.approx(schedule(it / 270000)) for it in steps} == steps


@pytest.mark.parametrize(("name", "max_iter"), [("1x", 90000), ("2x", 180000), ("6x", 540000), ("9x", 810000)])
def test_longer_schedules_keep_the_last_drops(name, max_iter):
    schedule = instantiate(load("schedules.py", f"lr_multiplier_{name}"))
    drops = {"1x": (60000, 80000), "2x": (120000, 160000)}.get(name, (max_iter - 60000, max_iter - 20000))
    values = [schedule(it / max_iter) for drop in drops for it in (drop - 1, drop)]
    assert values == pytest.approx([1, 0.1, 0.1, 0.01])


def test_one_cycle():
    schedule = instantiate(runpy.run_path(str(COMMON / "schedules.py"))["one_cycle"]())
    assert [schedule(t) for t in (0, 0.1, 0.55)] == pytest.approx([0.04, 1, 0.5])
    assert schedule(0.9999) < 1e-4
    assert all(schedule(t / 100) <= 1 for t in range(100))


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_learning_rate_override_reaches_every_group(name):
    cfg = load("optim.py", name)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.GroupNorm(1, 2))
    cfg.params.model = model
    cfg.lr = 0.5
    cfg.params.lr_factors = {"0.": 0.1}
    optimizer = instantiate(cfg)
    groups = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert groups == [(pytest.approx(0.05), cfg.weight_decay), (0.5, 0.0)]
    LRMultiplier(optimizer, instantiate(load("schedules.py", "lr_multiplier_1x")), 90000)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([5e-5, 5e-4])


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("data/coco.py", "dataloader"),
        ("data/shapes.py", "shapes_tiny"),
        ("data/shapes.py", "shapes"),
        ("data/shapes.py", "shapes_crowd"),
    ],
)
def test_data_configs_can_be_saved_and_built(file, key, tmp_path):
    cfg = LazyConfig.load(str(COMMON / "train.py"))
    cfg.dataloader = load(file, key)
    LazyConfig.save(cfg, str(tmp_path / "a.yaml"))
    again = LazyConfig.load(str(tmp_path / "a.yaml"))
    assert not (tmp_path / "a.yaml.pkl").exists()
    assert again.dataloader.train.seed == 0
    for split in ("train", "test"):
        instantiate(again.dataloader[split].mapper)
    assert again.dataloader.train.dataset.filter_empty == (file == "data/coco.py")
    assert again.dataloader.evaluator.dataset_name == again.dataloader.test.dataset.names


def test_a_model_node_is_built_alone():
    model = model_zoo.get_config("common/models/poto").model
    assert instantiate(OmegaConf.create(OmegaConf.to_container(model), flags={"allow_objects": True})).max_iter == 90000
    config = model_zoo.get_config("POTO/poto_r18_fpn_shapes_tiny")
    assert instantiate(config.model).max_iter == config.train.max_iter


def test_default_sizes_are_scaled_on_shapes():
    fit_to_shapes = load("shapes_tiny.py", "fit_to_shapes")
    model = model_zoo.get_config("common/models/fcos").model
    expected = model_zoo.get_config("FCOS/fcos_r18_fpn_shapes_tiny").model.criteria[0].matcher.size_ranges
    model.criteria[0].matcher = L(FCOS)()
    fit_to_shapes(model)
    assert model.criteria[0].matcher.size_ranges == expected
