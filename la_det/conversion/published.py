"""Reads the files that official repositories published."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from la_det.checkpoint.safe_pickle import (
    check_tensors,
    load_pickled_arrays,
    load_safetensors,
    load_torch_file,
    unpickling,
)
from la_det.errors import UserError

FLAG = "--allow-pickle"
OWN_HEAD = "head.predictors."  # with which the names of some parameters begin in all detectors of la_det
BESIDE_OWN = {"classes", "recipe"}  # what only la_det's checkpoints and converted files have beside the weights


def read_official(path: str, allow_pickle: bool = False) -> dict[str, Tensor]:
    """The state dict in a published file, without the wrappers of files and of parallel training.

    Args:
        path: a .pth, .pkl or .safetensors file. The tensors are at its top level, or in its entry "model" or
            "state_dict".
        allow_pickle: also read objects other than tensors, arrays and containers. They can run any code.

    Raises:
        UserError: the file cannot be read, needs `allow_pickle`, holds no state dict, or is of la_det.
    """
    try:
        loaded = _load(path, allow_pickle)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    beside = isinstance(loaded, Mapping) and BESIDE_OWN & loaded.keys()
    if isinstance(loaded, Mapping):
        loaded = next((loaded[key] for key in ("model", "state_dict") if key in loaded), loaded)
    state = check_tensors(path, loaded)
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    if beside or any(key.startswith(OWN_HEAD) for key in state):
        raise UserError(f"{path}: weights of la_det, which need no conversion; use la-det eval CONFIG {path}")
    return state


def _load(path: str, allow_pickle: bool) -> Any:
    suffix = Path(path).suffix
    if suffix == ".safetensors":
        return load_safetensors(path)
    if suffix == ".pkl":
        if not allow_pickle:
            return load_pickled_arrays(path, FLAG)
        with open(path, "rb") as file, unpickling(path):
            return pickle.load(file, encoding="latin1")
    return load_torch_file(path, allow_pickle, FLAG)


def some(keys: Iterable[str], shown: int = 2) -> str:
    """A few of the keys, for an error message."""
    keys = [f"{key:.100}" for key in keys]
    return ", ".join(keys[:shown]) + (f" and {len(keys) - shown} more" if len(keys) > shown else "")
