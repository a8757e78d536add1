"""Differences between the config that a run had and the config that the run is to go on with."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import DictConfig
from tabulate import tabulate

from la_det.checkpoint.recipe import fill_parts, is_fact
from la_det.config import class_name, fill_defaults, flat, read_saved_config, save_yaml_config
from la_det.errors import UserError

logger = logging.getLogger(__name__)

REFUSED = "refused"
WIDEST = 40  # characters of a value in the table


@dataclass(frozen=True)
class Change:
    """A key of the config with another value than the run had.

    Attributes:
        then, now: values of the key; None if there is no value.
        happens: what the change means for the resumed run.
    """

    key: str
    then: Any
    now: Any
    happens: str


# What the change of a key means: the longest of these prefixes of the key decides.
_MEANING = {
    "": "applies",
    "dataloader.evaluator": "applies to evaluations from here on",
    "dataloader.test": "applies to evaluations from here on",
    "dataloader.test.mapper.image_format": REFUSED,
    "dataloader.train": "applies: other batches from here on",
    "dataloader.train.mapper.image_format": REFUSED,
    "dataloader.train.num_workers": "applies, batches stay the same",
    "dataloader.train.prefetch_factor": "applies, batches stay the same",
    "dataloader.train.pin_memory": "applies, batches stay the same",
    "lr_multiplier": "applies from here on",
    "model": "applies; the weights have to fit",
    "optimizer": "applies from here on, the optimizer's state stays",
    "optimizer._target_": REFUSED,
    "train.amp": "applies from here on",
    "train.clip_grad": "applies from here on",
    "train.ema.decay": "applies from here on",
    "train.grad_accum_steps": "applies from here on",
    "train.init_checkpoint": "not read: the run's own checkpoint is",
    "train.max_iter": "applies: the schedule is stretched to it",
    "train.seed": "applies: other batches from here on",
}


def changes(then: DictConfig, now: DictConfig) -> list[Change]:
    """All keys with different values, references resolved, in the order of their names, without the output folder.

    Args:
        then: the saved config, from `read_saved_config`.
    """
    with TemporaryDirectory() as folder:  # after saving and reading, both configs name classes in the same way
        save_yaml_config(now, f"{folder}/now.yaml")
        new_config = read_saved_config(f"{folder}/now.yaml")
    for config in (then, new_config):  # a run may be older than an option, which it then had at its default
        fill_defaults(config)
        fill_parts(config.model)
    old, new = flat(then), flat(new_config)
    differ = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    differ = [key for key in differ if key != "train.output_dir"]
    return [Change(key, old.get(key), new.get(key), _meaning(key, old.get(key), new.get(key))) for key in differ]


def check_and_show(found: Iterable[Change], checkpoint: str) -> None:
    """Print the table of changes.

    Raises:
        UserError: a run cannot go on with one of the changes.
    """
    found = list(found)
    if not found:
        return
    rows = [(c.key, _short(c.then), _short(c.now), c.happens) for c in found]
    table = tabulate(rows, ["key", "then", "now", "what happens"], tablefmt="pipe", disable_numparse=True)
    logger.warning("The config is not the one that %s was trained with:\n%s", checkpoint, table)
    refused = [c for c in found if c.happens == REFUSED]
    if refused:
        first = refused[0]
        raise UserError(
            f"--resume: {first.key} was {_short(first.then)} and is {_short(first.now)}, with which no run can go on; "
            f"leave it, or start a new run with train.init_checkpoint={checkpoint}"
        )


def _meaning(key: str, then: Any, now: Any) -> str:
    if key.endswith("._target_") and class_name(then) == class_name(now):
        return "applies: a class of the same name"  # torch's SGD and ours, or a class that has moved
    if _makes_another_detector(key, then, now):
        return REFUSED
    if key == "train.ema.enabled":
        return "applies: the average begins at the checkpoint's weights" if now else "applies: the average is dropped"
    parts = [part for part in _MEANING if not part or f"{key}.".startswith(f"{part}.")]
    if None in (then, now):  # an option that only one of two classes has
        parts = [part for part in parts if _MEANING[part] != REFUSED]
    return _MEANING[max(parts, key=len)]


def _makes_another_detector(key: str, then: Any, now: Any) -> bool:
    """Whether the change makes another detector or another scheme: a class, or what weights need to stay as it was."""
    section, _, option = key.partition(".")
    if section != "model":
        return False
    if option.endswith("_target_"):
        new_or_gone = ".losses." in option and None in (then, now)  # the others still train the same scheme
        return not new_or_gone and not option.startswith(("inference.", "mask_inference."))
    return is_fact(option) and None not in (then, now)  # None: an option of another class, or of another version


def _short(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"
