"""Configs by name: "POTO/poto_r50_fpn_3x_ms_coco" is a project's config, "common/models/poto" a shared piece.

A recipe's twin on Shapes, such as "POTO/poto_r18_fpn_shapes_tiny", needs no file: its record in `zoo.yaml` is enough.
The twin is the recipe's model in the setting of `configs/common/shapes_tiny.py`.
"""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path

import yaml
from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf

_HERE = Path(__file__).resolve().parent

# Ending of a twin's name -> the twin's setting in configs/common.
TWINS = {"_r18_fpn_shapes_tiny": "shapes_tiny", "_r18_fpn_shapes_crowd": "shapes_crowd", "_r50_fpn_shapes": "shapes"}


def root() -> Path:
    """The folder that holds projects/ and configs/: the copy inside an installed wheel, or the checkout."""
    return _HERE if (_HERE / "projects").is_dir() else _HERE.parents[1]


def project_folders() -> tuple[Path, ...]:
    """Folders of the projects, sorted."""
    return tuple(sorted(folder.parent for folder in (root() / "projects").glob("*/zoo.yaml")))


@cache
def project_tables() -> dict[str, dict]:
    """Name of each project -> content of its `zoo.yaml`."""
    return {folder.name: yaml.safe_load((folder / "zoo.yaml").read_text()) for folder in project_folders()}


def list() -> tuple[str, ...]:
    """Names of all project configs, sorted."""
    files = {f"{file.parts[-3]}/{file.stem}" for folder in project_folders() for file in folder.glob("configs/*.py")}
    twins = {
        f"{project}/{config}"
        for project, tables in project_tables().items()
        for table in tables.values()
        for config in table["records"]
        if "/" not in config and config.endswith(tuple(TWINS))
    }
    return tuple(sorted(files | twins))


def get_config_file(name: str) -> Path:
    """Path of a config.

    Raises:
        KeyError: there is no config of this name, or it is a twin without a file.
    """
    file = _file(name)
    if not file.is_file():
        raise KeyError(f"{name!r} is a twin without a file: take get_config" if name in list() else _unknown(name))
    return file


def get_config(name: str) -> DictConfig:
    """The LazyConfig of this name.

    Raises:
        KeyError: there is no config of this name.
    """
    if (file := _file(name)).is_file():
        return LazyConfig.load(str(file))
    if name not in list():
        raise KeyError(_unknown(name))
    return _twin(name)


def closest_name(name: str) -> str | None:
    """The name of `list()` that is most like a mistyped one, which may lack its project; None if none is like it."""
    short = {known.partition("/")[2]: known for known in list()}
    config = name.rpartition("/")[2]
    close = [config] if config in short else difflib.get_close_matches(name, [*list(), *short], n=1)
    return short.get(close[0], close[0]) if close else None


def name_of_file(file: str) -> str:
    """Name of a project's config, from the path of its file, which need not exist."""
    parts = Path(file).with_suffix("").parts
    return f"{parts[-3]}/{parts[-1]}" if parts[-4:-3] == ("projects",) and parts[-2] == "configs" else file


def _twin(name: str) -> DictConfig:
    """A recipe's model in a setting for Shapes."""
    ending = next(ending for ending in TWINS if name.endswith(ending))
    model = LazyConfig.load(str(_recipe(*name.removesuffix(ending).split("/"), crowd="crowd" in ending)), "model")
    keys = "dataloader", "lr_multiplier", "optimizer", "train"
    *setting, make_twin = LazyConfig.load(str(_file(f"common/{TWINS[ending]}")), (*keys, "make_twin"))
    make_twin(model)
    return OmegaConf.create(dict(zip(keys, setting, strict=True)) | {"model": model}, flags={"allow_objects": True})


def _recipe(project: str, scheme: str, *, crowd: bool) -> Path:
    """The config whose model a twin has: with `crowd` the recipe for CrowdHuman, if there is one, else COCO's model."""
    folder = _configs(project)
    crowds = sorted(folder.glob(f"{scheme}_r50_fpn_*_crowdhuman.py")) if crowd else []
    shared = [file for file in [_file(f"common/models/{scheme}")] if file.is_file()]
    recipes = [*crowds, *shared, *sorted(folder.glob(f"{scheme}_r50_fpn_*_coco.py"))]
    if not recipes:
        raise KeyError(f"{project}/zoo.yaml has a twin of {scheme}, but there is no config of it with ResNet-50")
    return recipes[0]


def _unknown(name: str) -> str:
    close = closest_name(name)
    hint = f"did you mean {close!r}? " if close else ""
    return f"no config {name!r}; {hint}la_det.model_zoo.list() names all {len(list())}"


def _file(name: str) -> Path:
    project, _, rest = name.removesuffix(".py").partition("/")
    folder = root() / "configs" / "common" if project == "common" else _configs(project)
    return folder / f"{rest}.py"


def _configs(project: str) -> Path:
    return root() / "projects" / project / "configs"
