"""YAML configs: those of runs are read, and none runs code."""

from pathlib import Path

import pytest
import yaml
from detectron2.config import LazyConfig
from detectron2.layers import ShapeSpec
from omegaconf import OmegaConf

from la_det import model_zoo
from la_det.config import load_yaml_config
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
