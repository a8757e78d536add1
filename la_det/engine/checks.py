"""Checks of a config's values, before anything is built."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from la_det.errors import UserError

AMP_TYPES = ("float16", "bfloat16")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least


POSITIVE, NOT_NEGATIVE = (_is_whole(1), "a whole number from 1 on"), (_is_whole(0), "a whole number from 0 on")
AMOUNT = (lambda value: _is_number(value) and value >= 0, "a number from 0 on")
HANDLED = signal.Signals.__members__.keys() - {"SIGKILL", "SIGSTOP"}  # no process can handle these two
SIGNALS = (lambda value: value == "" or value in HANDLED, "the name of a signal that can be handled, such as SIGUSR1")
SWITCH = (lambda value: isinstance(value, bool), "True or False")
PATH = (lambda value: isinstance(value, str), "a path")
SECTION = (lambda value: isinstance(value, DictConfig), "a section with options of its own")
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model": SECTION,
    "optimizer": SECTION,
    "lr_multiplier": SECTION,
    "dataloader": SECTION,
    "dataloader.train": SECTION,
    "dataloader.test": SECTION,
    "train": SECTION,
    "train.amp": SECTION,
    "train.ema": SECTION,
    "train.ddp": SECTION,
    "train.clip_grad": SECTION,
    "train.auto_scale_lr": SECTION,
    "train.checkpointer": SECTION,
    "train.output_dir": PATH,
    "train.init_checkpoint": PATH,
    "train.allow_pickle": SWITCH,
    "train.channels_last": SWITCH,
    "train.deterministic": SWITCH,
    "train.amp.enabled": SWITCH,
    "train.ema.enabled": SWITCH,
    "train.clip_grad.per_parameter": SWITCH,
    "train.auto_scale_lr.enabled": SWITCH,
    "train.max_iter": POSITIVE,
    "train.log_period": POSITIVE,
    "train.checkpointer.period": POSITIVE,
    "train.checkpointer.max_to_keep": POSITIVE,
    "train.grad_accum_steps": POSITIVE,
    "train.eval_period": NOT_NEGATIVE,
    "train.diagnostics_period": NOT_NEGATIVE,
    "train.seed": NOT_NEGATIVE,
    "train.clip_grad.max_norm": AMOUNT,
    "train.ema.decay": (lambda value: _is_number(value) and 0 <= value < 1, "a number from 0 to below 1"),
    "train.amp.dtype": (lambda value: value in AMP_TYPES, " or ".join(AMP_TYPES)),
    "train.best.mode": (lambda value: value in ("max", "min"), "max or min"),
    "train.best.patience": NOT_NEGATIVE,
    "train.preemption_signal": SIGNALS,
    "train.auto_scale_lr.reference_batch_size": POSITIVE,
    "dataloader.train.total_batch_size": POSITIVE,
    "dataloader.train.num_workers": NOT_NEGATIVE,
    "dataloader.train.prefetch_factor": POSITIVE,
    "dataloader.test.batch_size": POSITIVE,
    "dataloader.test.num_workers": NOT_NEGATIVE,
    "dataloader.test.prefetch_factor": POSITIVE,
    "optimizer.lr": AMOUNT,
    "optimizer.weight_decay": AMOUNT,
    "optimizer.momentum": AMOUNT,
}


def check_values(cfg: DictConfig) -> None:
    """Check each value of a config alone; keys that the config does not have are not checked.

    Raises:
        UserError: a value is impossible; the message names the value and what it can be.
    """
    missing = object()
    for key, (is_right, wanted) in RULES.items():
        value = OmegaConf.select(cfg, key, default=missing)
        if value is not missing and not is_right(value):
            raise UserError(f"{key}={value}: it has to be {wanted}")


def check_config(cfg: DictConfig, world_size: int) -> None:
    """Check the values of a config for a training, each alone and what has to fit together.

    Args:
        world_size: number of processes.

    Raises:
        UserError: a value is impossible; the message names the value and what it can be.
    """
    check_values(cfg)
    total, steps = cfg.dataloader.train.total_batch_size, cfg.train.grad_accum_steps
    if total % world_size:
        raise UserError(f"dataloader.train.total_batch_size={total} is no multiple of {world_size} processes")
    if total // world_size % steps:
        raise UserError(
            f"train.grad_accum_steps={steps} does not divide the {total // world_size} images of a process's batch "
            "(dataloader.train.total_batch_size over the number of processes)"
        )
    for number, criterion in enumerate(cfg.model.get("criteria") or []):
        wants_ignored = criterion.get("ignored", "background") != "background"
        if wants_ignored and cfg.dataloader.train.mapper.get("ignored") != "mark":
            raise UserError(
                f"model.criteria.{number}.ignored={criterion.ignored}: it needs dataloader.train.mapper.ignored=mark, "
                "without which no criterion sees ignored boxes"
            )
    best = cfg.train.get("best")
    if best and best.patience and not best.metric:
        raise UserError("train.best.patience needs train.best.metric, such as bbox/AP")
