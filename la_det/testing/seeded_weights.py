"""Stand-ins for official weights, with the official names and shapes, and with values computed from the names.

A manifest is a JSON file with the keys and shapes of an official state dict, the adjustments of some values, and the
place of the model's config in the official repository.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from la_det.conversion.official_names import config_called
from la_det.testing.golden import NotBuilt

_MANIFESTS = Path(__file__).resolve().parents[2] / "tests" / "data" / "checkpoints"


def find_manifest(golden: Path) -> dict[str, Any]:
    """The manifest of a golden file: the one with the longest name with which the file's name begins.

    It is searched for beside the file, then in a folder that has the name of the file's folder and lies beside the
    parent of this folder, then in this checkout's tests.

    Raises:
        FileNotFoundError: there is no manifest.
    """
    folder = golden.resolve().parent
    folders = [folder, folder.parent.with_name(folder.name), _MANIFESTS]
    for place in folders:
        names = [file.stem for file in place.glob("*.json") if golden.stem.startswith(file.stem)]
        if names:
            return json.loads((place / f"{max(names, key=len)}.json").read_text())
    raise FileNotFoundError(f"{golden}: no manifest {golden.stem}.json in {', '.join(map(str, folders))}")


def zoo_config(manifest: dict[str, Any]) -> str:
    """Name of the config of the manifest's model.

    Raises:
        NotBuilt: there is no such config.
    """
    source = manifest["source"]
    file = Path(source["config"])
    config = config_called(file.parent.name if file.name == "config.py" else file.stem, source["repository"])
    if config is None:
        raise NotBuilt(f"no config for {source['repository']}'s {source['config']}")
    return config


def seeded_state_dict(manifest: dict[str, Any]) -> dict[str, Tensor]:
    """The official state dict, with values drawn from the keys and adjusted as the manifest says."""
    adjustments = {name: manifest.get(name, {}) for name in ("weight_mul", "logit_bias", "bias_add", "overrides")}
    state = {}
    for key, shape in manifest["keys"].items():
        if key in manifest.get("computed", {}):
            value = _computed(manifest["computed"][key], shape)
        elif shape or key.endswith("num_batches_tracked"):
            value = torch.from_numpy(_draw(key, shape))
        else:
            value = torch.tensor(0.0)  # `overrides` has the value
        value = value * adjustments["weight_mul"].get(key, 1)
        value = value + adjustments["logit_bias"].get(key, 0) + adjustments["bias_add"].get(key, 0)
        if key in adjustments["overrides"]:
            value = torch.full_like(value, adjustments["overrides"][key])
        state[key] = value
    return state


def _computed(value: Any, shape: list[int]) -> Tensor:
    return torch.full(shape, value["fill"]) if isinstance(value, dict) else torch.tensor(value)


def _draw(key: str, shape: list[int]) -> np.ndarray:
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    normal = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)  # noqa: NPY002
    if key.endswith("running_var"):
        return 1 + np.float32(0.1) * np.abs(normal)
    if key.endswith("running_mean"):
        return np.float32(0.1) * normal
    if len(shape) >= 2:
        return normal * np.float32(math.sqrt(1 / math.prod(shape[1:])))
    if key.rpartition(".")[2] in ("weight", "scale"):
        return 1 + np.float32(0.1) * normal
    return np.float32(0.05) * normal
