"""From a command line to a checked config, and to a process that is ready to run this config."""

from __future__ import annotations

import copy
import difflib
import logging
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from detectron2.config import LazyConfig
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import la_det
from la_det import model_zoo
from la_det.build import device_of
from la_det.checkpoint.recipe import apply_recipe
from la_det.config import check_arguments, fill_defaults, load_yaml_config
from la_det.engine.checks import check_config, check_values
from la_det.engine.fitting import Fitting, auto_scale_lr
from la_det.errors import UserError
from la_det.model_zoo.names import closest_name, name_of_file

logger = logging.getLogger(__name__)

USED_BY_SCALING = ("train.auto_scale_lr", "train.max_iter=", "optimizer.lr=")  # overrides of what auto-scaling scales
# Where files begin that are not the user's: installed packages, Python's own, la_det's, and code without a file.
NOT_THE_USER_S = (sys.prefix, sys.base_prefix, f"{Path(la_det.__file__).parent}{os.sep}", "<")
LIST_OR_ONE = ("names", "short_edge_length")  # options that take a list or one value


def load_config(
    config: str | Path | DictConfig,
    overrides: Sequence[str] = (),
    fitting: Fitting | None = None,
    *,
    keep_length: bool = False,
) -> DictConfig:
    """Load a LazyConfig and apply `key=value` overrides. An unknown key is an error; `+key=value` adds a key.

    Options that la_det's classes have and the config does not name are in the loaded config, at their defaults.

    Args:
        config: a file, a name of `la_det.model_zoo.list()`, or a config, which is copied. A Python file is run. A YAML
            file, such as a run's config.yaml, only names what to build; these can only be parts of detectors and of
            their training.
        fitting: fits the config to one's own data; where overrides say something else, they win.
        keep_length: do not fit the length of the training.

    Raises:
        UserError: there is no such config, key or argument, a Python file fails, or a value or `fitting` is impossible.
    """
    cfg = copy.deepcopy(config) if isinstance(config, DictConfig) else _read(os.path.expanduser(config))
    fill_defaults(cfg)
    cfg = _apply_overrides(cfg, overrides)
    if fitting not in (None, Fitting()):
        check_config(cfg, comm.get_world_size())
        used_up = USED_BY_SCALING if cfg.train.auto_scale_lr.enabled else ()
        keep_length = keep_length or any(override.startswith("train.max_iter=") for override in overrides)
        fitting.apply(cfg, keep_length=keep_length)
        fill_defaults(cfg)  # of what it has added
        cfg = _apply_overrides(cfg, [override for override in overrides if not override.startswith(used_up)])
    try:
        check_arguments(cfg)
    except UserError as error:
        if isinstance(config, DictConfig) or not str(config).endswith((".yaml", ".yml")):
            raise
        raise UserError(f"{error} If an earlier version wrote {config}, delete this option there") from error
    check_values(cfg)
    return cfg


def _read(config: str) -> DictConfig:
    if os.path.isfile(config) and config.endswith((".yaml", ".yml")):
        cfg = load_yaml_config(config)
    elif os.path.isfile(config) and config.endswith(".py"):
        cfg = _run_python(config)
    elif os.path.isfile(config):
        raise UserError(f"{config}: a config is a .py or .yaml file")
    elif (name := name_of_file(config)) in model_zoo.list():
        cfg = model_zoo.get_config(name)
    else:
        close = closest_name(name)
        raise UserError(
            f"{config or '--config-file'}: no such config file, and no name of the model zoo; "
            f"{f'did you mean {close}? ' if close else ''}`la-det zoo list` shows all names"
        )
    wanted = ("model", "train", "dataloader") if config.endswith((".yaml", ".yml")) else ("model", "train")
    missing = [key for key in wanted if key not in cfg]
    if missing:
        raise UserError(f"{config}: no config of a detector: it has no {missing[0]}; was it cut?")
    return cfg


def _run_python(file: str) -> DictConfig:
    """The config in a Python file. An error in it becomes one line with the place in the user's files."""
    try:
        return LazyConfig.load(file)
    except SyntaxError as error:
        of_config = re.fullmatch("Config file (.*) has syntax error!", str(error.msg))  # Detectron2 says nothing else
        cause = error.__cause__ if of_config and isinstance(error.__cause__, SyntaxError) else error
        name = of_config[1] if of_config else error.filename
        place = f"{name}:{cause.lineno}" if cause.lineno else name
        raise UserError(f"{place}: {cause.msg}") from error
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(NOT_THE_USER_S)]
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else file
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        kind = "" if isinstance(error, UserError) else type(error).__name__
        raise UserError(": ".join(filter(None, (place, kind, " ".join(str(message).split())[:300])))) from error


def _apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    for override in overrides:
        _check_override(cfg, override)
        cfg = _apply_override(cfg, override)
    return cfg


def _apply_override(cfg: DictConfig, override: str) -> DictConfig:
    """The config after an override in Hydra's grammar; where this fails and the value is text, as plain text."""
    key, _, value = override.lstrip("+").partition("=")
    now = OmegaConf.select(cfg, key) if re.fullmatch(r"[\w.]+", key) else None
    try:
        changed = LazyConfig.apply_overrides(cfg, [override])
        new = OmegaConf.select(changed, key)
        is_list_of_such = isinstance(new, ListConfig) and key.rpartition(".")[2] in LIST_OR_ONE
        if not isinstance(now, str) or new is None or isinstance(new, str) or is_list_of_such:
            _check_kind(override, key, now, new)
            return changed
    except (OverrideParseException, OmegaConfBaseException, KeyError) as error:
        if not isinstance(now, str):
            raise UserError(f"cannot apply the override {override} ({str(error).splitlines()[0]})") from error
    OmegaConf.update(cfg, key, value.strip("'\""))
    return cfg


def _check_kind(override: str, key: str, now: Any, new: Any) -> None:
    """Refuse a value of another kind: Hydra reads no, off and yes as text, which counts as true."""
    if isinstance(now, bool) and not isinstance(new, bool):
        raise UserError(f"{override}: it has to be True or False")
    if new is None or isinstance(new, (DictConfig, ListConfig)):
        return
    if isinstance(now, DictConfig):
        such_as = f", such as {key}.{next(iter(now))}" if now else ""
        raise UserError(f"{override}: {key} is a section; set one of its options{such_as}")
    if isinstance(now, ListConfig) and key.rpartition(".")[2] not in LIST_OR_ONE:
        raise UserError(f"{override}: {key} is a list, so give {key}=[...]")


def _check_override(cfg: DictConfig, override: str) -> None:
    key, separator, _ = override.partition("=")
    if not separator or not key.lstrip("+"):
        raise UserError(f"{override}: an override has the form key=value")
    missing = object()
    if key.startswith("+") or OmegaConf.select(cfg, key, default=missing) is not missing:
        return
    parent, _, name = key.rpartition(".")
    siblings = OmegaConf.select(cfg, parent) if parent else cfg
    close = difflib.get_close_matches(name, list(siblings) if isinstance(siblings, DictConfig) else [], n=1)
    hint = f"did you mean {'.'.join(filter(None, (parent, close[0])))}?" if close else "check the config file"
    raise UserError(f"{override}: the config has no such key; {hint} (+{override} adds it)")


def setup(cfg: DictConfig, facts: Literal["warn", "ignore"] = "warn") -> None:
    """Check the config, complete it, and seed this process's random generators. No file is written.

    The config gets what converted weights at `train.init_checkpoint` need, so the saved config has it, too.

    Args:
        facts: whether weights at `train.init_checkpoint` that are of another detector give a warning.

    Raises:
        UserError: the config says something impossible, or the weights cannot be read.
    """
    check_config(cfg, comm.get_world_size())
    for key in ("output_dir", "init_checkpoint"):
        cfg.train[key] = os.path.expanduser(cfg.train[key])  # shells expand ~ only at the beginning of a word
    if cfg.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.deterministic = True
    apply_recipe(cfg, cfg.train.init_checkpoint, facts)
    auto_scale_lr(cfg)
    seed_all_rng(cfg.train.seed + comm.get_rank())
    logger.info("%d process(es) on %s, output in %s", comm.get_world_size(), device_of(cfg), cfg.train.output_dir)
