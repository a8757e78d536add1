"""What a converted file says about its weights: the config they are for, and what that config must agree on."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path
from typing import Any

import torch
from detectron2.utils.file_io import PathManager
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from la_det.checkpoint.checkpointer import replacing
from la_det.errors import UserError

logger = logging.getLogger(__name__)

SUFFIXES = (".safetensors", ".pth")
_KEY = "recipe"  # in the metadata of .safetensors, at the top level of .pth


def network_facts(model: DictConfig) -> dict[str, Any]:
    """What weights need from a model's config beyond its layers: how it sees images and boxes, P6's input."""
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
    """Write .safetensors or Detectron2's .pth, by the suffix; a failure leaves the file that was there.

    Args:
        recipe: "config" (its name), "repository", "overrides" (key -> value) and "network" (see `network_facts`).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        if path.suffix == ".safetensors":
            whole = {key: value.clone(memory_format=torch.contiguous_format) for key, value in weights.items()}
            file.write(save(whole, {_KEY: json.dumps(recipe)}))
        else:
            torch.save({"model": weights, _KEY: recipe}, file)


def read_recipe(path: str) -> dict[str, Any]:
    """The recipe in a converted file, or in one at an address; empty for whatever else the path may be."""
    return read_entry(path, _KEY)


def read_classes(path: str) -> dict[str, list] | None:
    """Names and ids of the classes that the weights in a file were trained for; None where it does not say.

    In the form of `la_det.data.classes.Classes.state_dict`.
    """
    found = read_entry(path, "classes")
    if not isinstance(found, dict) or not all(isinstance(found.get(key), list) for key in ("names", "ids")):
        return None
    strings = all(isinstance(name, str) for name in found["names"])
    return found if strings and len(found["names"]) == len(found["ids"]) else None


def read_entry(path: str, key: str) -> dict[str, Any]:
    """What a file of weights, or one at an address, holds beside them; empty for whatever else the path may be."""
    if not path.endswith(SUFFIXES):
        return {}
    try:
        path = PathManager.get_local_path(path)
        if path.endswith(".safetensors"):
            with safe_open(path, "pt") as file:
                return json.loads((file.metadata() or {}).get(key, "{}"))
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True).get(key, {})
    except (OSError, EOFError, RuntimeError, ValueError, AttributeError, pickle.UnpicklingError, SafetensorError):
        return {}  # whoever loads the weights says what is wrong with them


def apply_recipe(cfg: DictConfig, path: str) -> None:
    """Give `cfg` the options that the converted weights at `path` need; does nothing for other files.

    Raises:
        UserError: the config is for weights that see images or count boxes in another way.
    """
    recipe = read_recipe(path)
    if not recipe or "head" not in cfg.model:
        return
    apply_overrides(cfg, recipe["overrides"])
    for key, value in recipe["overrides"].items():
        logger.info("%s=%s, as %s needs it", key, value, path)
    found = network_facts(cfg.model)
    wrong = [
        f"{key} {found[key]} instead of {value}" for key, value in recipe["network"].items() if found[key] != value
    ]
    if wrong:
        raise UserError(f"{path}: it is for {recipe['config']}; the config in use has {', '.join(wrong)}")


def apply_overrides(cfg: DictConfig, overrides: dict[str, Any]) -> DictConfig:
    """Set config keys; returns the config."""
    for key, value in overrides.items():
        OmegaConf.update(cfg, key, value)
    return cfg
