"""The recipe beside weights: the config that they need, and facts with which the config in use must agree.

The converter writes it into its files, and a training into its checkpoints.
"""

from __future__ import annotations

import copy
import json
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from detectron2.utils.file_io import PathManager
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from la_det.checkpoint.checkpointer import replacing
from la_det.checkpoint.safe_pickle import CHECKSUM, outline, tensors_checksum
from la_det.config import class_name, class_node, fill_defaults, flat, is_plain, plain
from la_det.errors import UserError

logger = logging.getLogger(__name__)

SUFFIXES = (".safetensors", ".pth")
RECIPE = "recipe"  # key in the metadata of .safetensors, and at the top level of .pth
SHOWN = 3  # differences that an error names
# What weights need of a model's config besides the layers: what they see, where they predict, what their maps mean.
_FACTS = re.compile(
    r"input_format|pixel_mean|pixel_std|backbone\.top_block\.in_feature|inference\.score(\..+)?"
    r"|head\.predictors\.\w+\.(box_activation|quality_on|filter_logits|(priors|codec|coarse_codec)(\..+)?)"
)
# What a part that is None stands for.
_DEFAULTS = {"codec": "la_det.structures.LTRBCodec", "score": "la_det.structures.Score"}
# Names of facts in files of earlier versions; {} is the branch of inference.
_OLD_NAMES = {
    "box_offset": "head.predictors.{}.priors.box_offset",
    "location_offset": "head.predictors.{}.priors.offset",
    "p6_from": "backbone.top_block.in_feature",
}
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


def is_fact(key: str) -> bool:
    """Whether weights need the value of this key of a model's config, such as "pixel_mean", to stay as it was."""
    return _FACTS.fullmatch(key) is not None


def network_facts(model: DictConfig) -> dict[str, Any]:
    """Facts of a model's config that weights need besides the layers, by key; the fact of a part is its class's name.

    They are the conventions of images, boxes and probabilities, and P6's input. A codec or score that is None is the
    default that it stands for.
    """
    whole = copy.deepcopy(model)
    fill_parts(whole)
    facts = {}
    for key, value in flat(whole).items():
        if is_fact(key):
            facts[key.removesuffix("._target_")] = class_name(value) if key.endswith("._target_") else value
    return {key: plain(value) for key, value in facts.items() if is_plain(value)}


def fill_parts(model: DictConfig) -> None:
    """Write the defaults of options, and of codecs and scores that are None, into a model's config."""
    fill_defaults(model)
    for key, value in flat(model).items():
        if value is None and (default := _DEFAULTS.get(key.rpartition(".")[2])):
            OmegaConf.update(model, key, {"_target_": default})
    fill_defaults(model)


def training_recipe(cfg: DictConfig) -> dict[str, Any]:
    """The recipe for the checkpoints of a training."""
    facts = network_facts(cfg.model)
    return {"config": "the config of their training", "repository": "", "overrides": {}, "network": facts}


def write_weights(path: Path, weights: dict[str, Tensor], recipe: dict[str, Any]) -> None:
    """Write .safetensors or Detectron2's .pth, as the suffix says. After a failure, the old file is still there.

    Args:
        recipe: "config" (what to use), "repository", "overrides" (key -> value) and "network" (see `network_facts`).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        if path.suffix == ".safetensors":
            whole = {key: value.clone(memory_format=torch.contiguous_format) for key, value in weights.items()}
            metadata = {RECIPE: json.dumps(recipe)}
            file.write(save(whole, metadata | {CHECKSUM: tensors_checksum(whole, metadata)}))
        else:
            torch.save({"model": weights, RECIPE: recipe}, file)


def read_recipe(path: str) -> dict[str, Any]:
    """The recipe in a file, at a path or an address; empty for files without one.

    Raises:
        UserError: the recipe is not one that the converter or a training writes.
    """
    recipe = _read_entry(path, RECIPE)
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
    if not all(isinstance(key, str) for key in recipe["network"]):
        raise UserError(f"{path}: its recipe is damaged; convert the file again, or take another checkpoint")
    for key, value in recipe["overrides"].items():
        if key not in _OVERRIDES or not _OVERRIDES[key](value):
            raise UserError(
                f"{path}: its recipe would set {key}={value!r:.80}, as `la-det convert` never writes; "
                "do not use this file, or convert it again"
            )
    return recipe


def apply_recipe(cfg: DictConfig, path: str, facts: Literal["refuse", "warn", "ignore"] = "refuse") -> None:
    """Give `cfg` the options that the weights at `path` need, and compare their facts. Files without a recipe are fine.

    Args:
        facts: what happens if the config has other facts than the weights.
            "refuse": an error.
            "warn": a warning, as where a training begins with weights of another detector.
            "ignore": nothing, as where these weights are not used, or compared later.

    Raises:
        UserError: the config has other conventions of images, boxes or probabilities than the weights.
    """
    recipe = read_recipe(path)
    if not recipe or OmegaConf.select(cfg, "model.head.predictors") is None:
        return  # of a detector of another package, the layers say whether it is the same
    apply_overrides(cfg, recipe["overrides"])
    for key, value in recipe["overrides"].items():
        logger.info("%s=%s, as %s needs it", key, value, path)
    branch, found = cfg.model.get("inference_branch", "main"), network_facts(cfg.model)
    names = {key: name.format(branch) for key, name in _OLD_NAMES.items()}  # the file's own keys are no formats
    wanted = {names.get(key, key): value for key, value in recipe["network"].items()}
    # Another class of a part has other options, and so can another version of la_det: the class alone decides then.
    wrong = [
        f"model.{key} {found[key]!s:.80} instead of {value!s:.80}"
        for key, value in wanted.items()
        if key in found and found[key] != value
    ]
    if not wrong or facts == "ignore":
        return
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    what = f"{path}: these weights do not belong to the config, which has {', '.join(wrong[:SHOWN])}{more}"
    if facts == "refuse":
        raise UserError(f"{what}; use {recipe['config']}")
    logger.warning("%s; the training begins with them nevertheless", what)


def check_number_of_classes(cfg: DictConfig, path: str) -> None:
    """Raise `UserError` if the weights at `path` say that they are of another number of classes than the config's."""
    classes, number = read_classes(path), class_node(cfg.model).get("num_classes")
    if classes is None or number is None or len(classes["names"]) == number:
        return
    data = OmegaConf.select(cfg, "dataloader.test.dataset.names")
    raise UserError(
        f"{path}: weights of {len(classes['names'])} classes, but the config has {number}, for the data {data}; "
        "use data with the classes of the weights, or begin a training with these weights by `la-det train --from`"
    )


def apply_overrides(cfg: DictConfig, overrides: dict[str, Any]) -> DictConfig:
    """Set keys of a config, and return the config."""
    for key, value in overrides.items():
        OmegaConf.update(cfg, key, value)
    return cfg
