"""YAML configs: those of runs are read, and none runs code. Defaults: every option stands in a loaded config."""

import inspect
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf

from la_det import model_zoo
from la_det.config import fill_defaults, load_yaml_config, save_yaml_config
from la_det.engine.setup import load_config
from la_det.errors import UserError

RUNS_CODE = "!!python/object/apply:os.mkdir [evil_was_here]"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "POTO/poto_r50_fpn_3x_ms_coco",
        "LLA/faster_rcnn_r50_fpn_30k_crowdhuman",
        "O2F/o2f_swin_t_fpn_1x_coco",
        "DATE/date_r_r18_fpn_shapes_tiny",
        "LLA/lla_r18_fpn_shapes_crowd",
    ],
)
def test_configs_of_runs_are_read(name):
    LazyConfig.save(model_zoo.get_config(name), "a.yaml")
    LazyConfig.save(load_yaml_config("a.yaml"), "b.yaml")
    assert Path("a.yaml").read_text() == Path("b.yaml").read_text()


@pytest.mark.slow
def test_configs_of_all_runs_are_read():
    for name in model_zoo.list():
        test_configs_of_runs_are_read(name)


def test_shapes():
    Path("a.yaml").write_text(yaml.dump({"shape": ShapeSpec(channels=3)}))
    assert OmegaConf.to_container(load_yaml_config("a.yaml"))["shape"].channels == 3


@pytest.mark.parametrize(
    "text",
    [
        f"x: {RUNS_CODE}",
        RUNS_CODE,
        "x: !!python/object/new:os.mkdir [evil_was_here]",
        "x: !!python/name:os.mkdir",
        "x: !!python/module:os",
        "model: {_target_: os.mkdir, path: evil_was_here}",
        "model: [{a: {_target_: posix.mkdir, path: evil_was_here}}]",
        "model: {_target_: la_det.data.shapes.os.mkdir, path: evil_was_here}",
        "model: {_target_: la_det.data.crowdhuman_coco, path: evil_was_here}",
        "model: {_target_: detectron2.config.LazyConfig.load, filename: evil.py}",
        "model: {_target_: torch.hub.load, repo_or_dir: x}",
        "model: {_target_: '${a}'}\na: os.mkdir",
        "model: {_target_: [os.mkdir]}",
        "x: [1",
        "just text",
        "",
        "x: '${'",
        "\xff\0",
        "x: &x [*x]",
        "x: " + "[" * 5000,
        "\n".join([f"a{i}: &a{i} [" + ", ".join([f"*a{i - 1}"] * 9 if i else ["x"] * 9) + "]" for i in range(9)]),
    ],
)
def test_hostile_files(text):
    Path("a.yaml").write_text(text, encoding="latin1")
    with pytest.raises(UserError, match="^a.yaml: "):
        load_yaml_config("a.yaml")
    assert not Path("evil_was_here").exists()


def test_missing_file():
    with pytest.raises(UserError, match="gone.yaml: No such file"):
        load_yaml_config("gone.yaml")


def _nodes(cfg, key=""):
    """Key and node of everything that a config builds."""
    if isinstance(cfg, DictConfig):
        if "_target_" in cfg:
            yield key, cfg
        for name in cfg:
            yield from _nodes(cfg._get_node(name), f"{key}.{name}".lstrip("."))
    elif isinstance(cfg, ListConfig):
        for i in range(len(cfg)):
            yield from _nodes(cfg._get_node(i), f"{key}.{i}")


@pytest.mark.parametrize("name", ["POTO/poto_r50_fpn_3x_ms_coco", "DATE/tal_dual_r18_fpn_shapes_tiny"])
def test_every_option_can_be_set(name):
    overrides = []
    for key, node in _nodes(load_config(name)):
        target = locate(node._target_) if isinstance(node._target_, str) else node._target_
        if target.__module__.startswith("la_det."):
            for parameter in inspect.signature(target).parameters.values():
                if isinstance(parameter.default, (bool, int, float, str)):
                    overrides.append(f"{key}.{parameter.name}={parameter.default}")
    assert len(overrides) > 50 and "model.inference.max_detections=100" in overrides
    load_config(name, overrides)


def test_defaults_build_what_their_absence_builds():
    """Also for classes that pass options on to a base, which they give some parts themselves."""
    for name in ("DDQ/ddq_fcn_r18_fpn_shapes_tiny", "DATE/tal_dual_detached_r18_fpn_shapes_tiny"):
        short, full = model_zoo.get_config(name).model, load_config(name).model
        assert "score_threshold" in full.inference or "QueryInference" not in full.inference._target_
        with torch.device("meta"):
            assert repr(instantiate(short)) == repr(instantiate(full))


def test_what_is_set_stays():
    cfg = OmegaConf.create({"model": {"_target_": "la_det.matchers.POTO", "alpha": 0.3}, "none": None, "x": "${model}"})
    fill_defaults(cfg)
    assert cfg.model.alpha == 0.3 and cfg.model.center_radius == 1.5
    assert cfg.none is None and cfg._get_node("x")._value() == "${model}"


def test_defaults_of_what_is_not_there():
    cfg = OmegaConf.create({"a": {"_target_": "la_det.nowhere.X"}, "b": {"_target_": "os.mkdir"}, "c": "???"})
    before = OmegaConf.to_yaml(cfg)
    fill_defaults(cfg)
    assert OmegaConf.to_yaml(cfg) == before


def test_a_saved_config_repeats_itself(tmp_path):
    cfg = load_config("POTO/poto_r18_fpn_shapes_tiny", ["model.criteria.0.matcher.alpha=0.5"])
    LazyConfig.save(cfg, "first.yaml")
    again = load_config("first.yaml")
    assert again.model.criteria[0].matcher.alpha == 0.5
    LazyConfig.save(again, "second.yaml")
    assert Path("first.yaml").read_text() == Path("second.yaml").read_text()


OWN_CLASS = """
from detectron2.config import LazyCall as L
from la_det import model_zoo
from la_det.matchers import POTO

config = model_zoo.get_config("POTO/poto_r18_fpn_shapes_tiny")
model, train, dataloader = config.model, config.train, config.dataloader
optimizer, lr_multiplier = config.optimizer, config.lr_multiplier

class Mine(POTO):
    pass

model.criteria[0].matcher = L(Mine)(alpha=0.9)
"""


def test_a_saved_config_with_ones_own_class_names_its_python_config():
    Path("mine.py").write_text(OWN_CLASS)
    LazyConfig.save(load_config("mine.py"), "run.yaml")
    with pytest.raises(
        UserError, match="^run.yaml: model.criteria.0.matcher._target_|^run.yaml: .*Mine.*Python config"
    ):
        load_config("run.yaml")


def test_a_saved_config_keeps_the_order_of_parts():
    """Parts are built, and draw their random weights, in this order."""
    cfg = load_config("FCOS/fcos_r18_fpn_shapes_tiny")
    save_yaml_config(cfg, "run.yaml")
    head = load_config("run.yaml").model.head
    assert [name for name in head if name in ("cls_tower", "box_tower")] == ["cls_tower", "box_tower"]
    lines = Path("run.yaml").read_text().splitlines()
    assert lines[lines.index("model:") + 1] == "  _target_: la_det.modeling.AssignmentDetector"
