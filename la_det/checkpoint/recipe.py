"""The recipe in a converted file: the config of its weights, and facts with which this config must agree."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.utils.file_io import PathManager
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from la_det.checkpoint.checkpointer import replacing
from la_det.checkpoint.safe_pickle import CHECKSUM, outline, tensors_checksum
from la_det.errors import UserError

logger = logging.getLogger(__name__)

SUFFIXES = (".safetensors", ".pth")
_KEY = "recipe"  # key in the metadata of .safetensors, and at the top level of .pth
# The only keys of a config that a converted file may set, and the check of their values.
_OVERRIDES: dict[str, Callable[[Any], bool]] = {
    "model.head.predictors.main.priors.box_offset": lambda value: value in (0, 1),
    "model.head.predictors.main.repair": lambda value: type(value) is bool,
    "model.inference.clip": lambda value: type(value) is bool,
    "model.inference.candidates._target_": lambda value: value == "la_det.modeling.candidate_rules.TopPairs",
    "model.inference.candidates.cap": lambda value: type(value) is bool,
    "model.backbone.top_block.in_feature": lambda value: value in ("p5", "res5"),
    "model.backbone.top_block.in_channels": lambda value: type(value) is int and 0 < value <= 4096,
}


def network_facts(model: DictConfig) -> dict[str, Any]:
    """Facts of a model's config that weights need besides the layers: conventions of images and boxes, P6's input."""
    priors = model.head.predictors[model.get("inference_branch", "main")].priors
    return {
        "input_format": model.input_format,
        "pixel_mean": list(model.pixel_mean),
        "pixel_std": list(model.pixel_std),
        "box_offset": priors.get("box_offset", 0),
        "location_offset": priors.get("offset", 0.5),
        "p6_from": model.backbone.top_block.in_feature,
    }


def write_weights(path: Path, weights: dict[str, Tensor], recipe: dict[str, Any]) -> None:
    """Write .safetensors or Detectron2's .pth, as the suffix says. After a failure, the old file is still there.

    Args:
        recipe: "config" (its name), "repository", "overrides" (key -> value) and "network" (see `network_facts`).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        if path.suffix == ".safetensors":
            whole = {key: value.clone(memory_format=torch.contiguous_format) for key, value in weights.items()}
            metadata = {_KEY: json.dumps(recipe)}
            file.write(save(whole, metadata | {CHECKSUM: tensors_checksum(whole, metadata)}))
        else:
            torch.save({"model": weights, _KEY: recipe}, file)


def read_recipe(path: str) -> dict[str, Any]:
    """The recipe in a converted file, at a path or an address; empty for all other paths.

    Raises:
        UserError: the recipe is not one that the converter writes.
    """
    recipe = _read_entry(path, _KEY)
    return _checked(path, recipe) if recipe else {}


def read_classes(path: str) -> dict[str, list] | None:
    """Names and ids of the classes of the weights in a file; None if the file does not have them.

    The form is that of `la_det.data.classes.Classes.state_dict`.
    """
    found = _read_entry(path, "classes")
    if not isinstance(found, dict) or not all(isinstance(found.get(key), list) for key in ("names", "ids")):
        return None
    strings = all(isinstance(name, str) for name in found["names"])
    return found if strings and len(found["names"]) == len(found["ids"]) else None


def _read_entry(path: str, key: str) -> Any:
    """The entry `key` that a file has beside its weights; empty for all other paths."""
    if not path.endswith(SUFFIXES):
        return {}
    try:
        local = PathManager.get_local_path(path)
        if local.endswith(".safetensors"):
            with safe_open(local, "pt") as file:
                return json.loads((file.metadata() or {}).get(key, "{}"))
        content = outline(local)
        return content.get(key, {}) if isinstance(content, Mapping) else {}
    except (OSError, ValueError, RecursionError, SafetensorError, UserError):
        return {}  # loading the weights will report what is wrong with the file


def _checked(path: str, recipe: Any) -> dict[str, Any]:
    """The recipe, if the converter can have written it: its values go into a config, which builds objects."""
    parts = {"config": str, "repository": str, "overrides": dict, "network": dict}
    if not isinstance(recipe, dict) or not all(isinstance(recipe.get(key), kind) for key, kind in parts.items()):
        raise UserError(f"{path}: its recipe is damaged or not of `la-det convert`; convert the file again")
    for key, value in recipe["overrides"].items():
        if key not in _OVERRIDES or not _OVERRIDES[key](value):
            raise UserError(
                f"{path}: its recipe would set {key}={value!r:.80}, as `la-det convert` never writes; "
                "do not use this file, or convert it again"
            )
    return recipe


def apply_recipe(cfg: DictConfig, path: str) -> None:
    """Give `cfg` the options that the converted weights at `path` need. For other files, nothing is done.

    Raises:
        UserError: the config has other conventions of images or boxes than the weights.
    """
    recipe = read_recipe(path)
    if not recipe or "head" not in cfg.model:
        return
    apply_overrides(cfg, recipe["overrides"])
    for key, value in recipe["overrides"].items():
        logger.info("%s=%s, as %s needs it", key, value, path)
    found = network_facts(cfg.model)
    wrong = [
        f"{key} {found.get(key)} instead of {value!s:.80}"
        for key, value in recipe["network"].items()
        if found.get(key) != value
    ]
    if wrong:
        raise UserError(f"{path}: it is for {recipe['config']}; the config in use has {', '.join(wrong)}")


def apply_overrides(cfg: DictConfig, overrides: dict[str, Any]) -> DictConfig:
    """Set keys of a config, and return the config."""
    for key, value in overrides.items():
        OmegaConf.update(cfg, key, value)
    return cfg
