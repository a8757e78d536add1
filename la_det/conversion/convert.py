"""From an official state dict to a state dict of la_det, and the config that it belongs to."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from detectron2.config import instantiate
from torch import Tensor

from la_det import model_zoo
from la_det.checkpoint.recipe import apply_overrides, network_facts
from la_det.conversion.published import some
from la_det.conversion.repositories import REPOSITORIES, Repository
from la_det.errors import UserError
from la_det.model_zoo.records import Record


@dataclass(frozen=True)
class Fit:
    """How the keys of a checkpoint and the parameters of a config's model fit together.

    Attributes:
        repository: repository whose rules were applied.
        config: name of the config in the zoo.
        overrides: options of the config, key -> value, that these weights need.
        sources: parameter of the model -> key of the checkpoint; `name[i]` is element i of parameter `name`.
        dropped: keys that hold no parameter: constants that la_det computes, and counters.
        missing: parameters without a key.
        unused: keys without a parameter.
        wrong: messages about keys with a wrong shape and constants with a wrong value.
    """

    repository: Repository
    config: str
    overrides: dict[str, Any]
    sources: dict[str, str]
    dropped: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    wrong: tuple[str, ...]

    @property
    def errors(self) -> int:
        """Number of keys and parameters that do not fit; 0 for a complete mapping."""
        return len(self.missing) + len(self.unused) + len(self.wrong)

    def describe_errors(self) -> str:
        """Short text about all that does not fit."""
        parts = {"missing": self.missing, "unused": self.unused, "wrong": self.wrong}
        return "; ".join(f"{len(keys)} {kind} ({some(keys)})" for kind, keys in parts.items() if keys)

    def weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The model's state dict, from the checkpoint's."""
        weights: dict[str, Tensor] = {}
        vectors: dict[str, list[Tensor]] = {}
        for name, key in self.sources.items():  # elements of a vector in their order
            value = state[key]
            for end, change in self.repository.values:
                value = change(value) if name.endswith(end) else value
            if name.endswith("]"):
                vectors.setdefault(_vector(name), []).append(value.reshape(()))
            else:
                weights[name] = value
        return weights | {name: torch.stack(elements) for name, elements in vectors.items()}

    def recipe(self) -> dict[str, Any]:
        """The recipe for the converted file, see `la_det.checkpoint.recipe`."""
        cfg = apply_overrides(model_zoo.get_config(self.config), self.overrides)
        return {
            "config": self.config,
            "repository": self.repository.name,
            "overrides": self.overrides,
            "network": network_facts(cfg.model),
        }


def find_fit(path: str, state: Mapping[str, Tensor], config: str | None = None) -> Fit:
    """The one complete mapping to a config's model.

    Args:
        path: path of the checkpoint, for error messages.
        state: state dict of an official checkpoint.
        config: name of the config in the zoo; by default the only one whose model has these parameters.

    Raises:
        UserError: there is no complete mapping, or there are several.
    """
    complete = complete_fits(path, state, config)
    if len(complete) > 1:
        names = ", ".join(fit.config for fit in complete)
        raise UserError(
            f"{path}: {len(complete)} configs have these parameters; say with --config which it is: {names}"
        )
    return complete[0]


def complete_fits(
    path: str, state: Mapping[str, Tensor], config: str | None = None, records: Mapping[str, Record] | None = None
) -> list[Fit]:
    """All complete mappings to configs' models, at least one.

    Args:
        path, state: see `find_fit`.
        config: name of the only config to try.
        records: the configs to try, and their repositories; by default those of the zoo.

    Raises:
        UserError: there is no complete mapping.
    """
    fits = all_fits(path, state, config, records)
    complete = [fit for fit in fits if not fit.errors]
    if not complete:
        closest = min(fits, key=lambda fit: fit.errors)
        what = "does not fit" if config else "fits no config, the closest is"
        raise UserError(f"{path}: it {what} {closest.config}: {closest.describe_errors()}")
    return complete


def all_fits(
    path: str, state: Mapping[str, Tensor], config: str | None = None, records: Mapping[str, Record] | None = None
) -> list[Fit]:
    """Mappings, complete or not, to `config`; by default to all configs of the repositories with such keys.

    Raises:
        UserError: the config or the kind of checkpoint is not known.
    """
    records = model_zoo.get_records() if records is None else records
    owners = [(r, name) for name, record in sorted(records.items()) for r in REPOSITORIES if r.published(record)]
    if config is None:
        fits = [fit(r, state, name) for r, name in owners if any(key.startswith(r.head) for key in state)]
        if not fits:
            raise UserError(
                f"{path}: its keys ({some(state)}) are not of an official repository that is known here; "
                "la-det reproduce --list names these"
            )
        return fits
    fits = [fit(r, state, name) for r, name in owners if name == config]
    if not fits:
        close = difflib.get_close_matches(config, [name for _, name in owners], n=1, cutoff=0)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"--config {config}: no config of an official model{hint}")
    return fits


def fit(repository: Repository, state: Mapping[str, Tensor], config: str) -> Fit:
    """Compare a checkpoint with a config's model, by the rules of one repository."""
    renamed, wrong = _rename(repository, state)
    overrides = _overrides(repository, {name: state[key].shape for name, key in renamed.items()})
    wanted = dict(_shapes(config, tuple(overrides.items())))
    for name in {_vector(name) for name in renamed if name.endswith("]")} & wanted.keys():
        (length,) = wanted.pop(name)
        wanted |= {f"{name}[{i}]": () for i in range(length)}
    sources = {name: renamed[name] for name in wanted if name in renamed}
    for name, key in sources.items():
        found, shape = tuple(state[key].shape), wanted[name]
        if found != shape and not (shape == () and state[key].numel() == 1):
            wrong.append(f"{key} {list(found)} instead of {list(shape)}")
    rest = state.keys() - sources.values()
    dropped = {key for key in rest if key.endswith(".num_batches_tracked") or _constant(repository, key) is not None}
    return Fit(
        repository,
        config,
        overrides,
        sources,
        dropped=tuple(sorted(dropped)),
        missing=tuple(name for name in wanted if name not in renamed),
        unused=tuple(sorted(rest - dropped)),
        wrong=tuple(wrong),
    )


def _rename(repository: Repository, state: Mapping[str, Tensor]) -> tuple[dict[str, str], list[str]]:
    """Our name -> key, and messages about constants of another value and about two keys for one parameter."""
    renamed: dict[str, str] = {}
    wrong = []
    for key, value in state.items():
        constant = _constant(repository, key)
        if constant is not None:
            if not _holds(value, constant):
                wrong.append(f"{key} is not {str(constant):.40}")
            continue
        name = repository.rename(key)
        if name in renamed:
            wrong.append(f"{key} is another {renamed[name]}")
        renamed[name] = key
    return renamed, wrong


def _constant(repository: Repository, key: str) -> Any:
    """The value that a key of a constant must have; None for other keys."""
    for pattern, value in repository.constants:
        match = re.match(pattern, key)
        if match:
            return value(match)
    return None


def _holds(value: Tensor, constant: Any) -> bool:
    """Whether all entries of a value are equal to the constant's."""
    expected = torch.as_tensor(constant, dtype=torch.float64)
    try:
        return torch.allclose(value.double(), expected.expand(value.shape))
    except RuntimeError:  # the shapes differ
        return False


def _overrides(repository: Repository, shapes: Mapping[str, torch.Size]) -> dict[str, Any]:
    """The options of a config that weights of these shapes need."""
    overrides = dict(repository.overrides)
    if repository.box_offset:
        overrides["model.head.predictors.main.priors.box_offset"] = repository.box_offset
    p6, p5 = (tuple(shapes.get(f"backbone.{layer}.weight", ()))[:2] for layer in ("top_block.p6", "fpn_lateral5"))
    if len(p6) == 2 and p6 == p5:  # both read C5
        overrides["model.backbone.top_block.in_feature"] = "res5"
        overrides["model.backbone.top_block.in_channels"] = p6[1]
    return overrides


@cache
def _shapes(config: str, overrides: tuple[tuple[str, Any], ...]) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters and buffers of a config's model, by name."""
    cfg = apply_overrides(model_zoo.get_config(config), dict(overrides))
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in instantiate(cfg.model).state_dict().items()}


def _vector(element: str) -> str:
    """The part `name` of `name[i]`."""
    return element.partition("[")[0]
