"""State dicts with official keys and shapes that need no memory, for tests of conversion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MANIFESTS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parents[1] / "data" / "checkpoints").glob("*.json"))
}


def official_state(manifest: dict[str, Any]) -> dict[str, Tensor]:
    """All entries of the k-th key are k; constants are those of the manifest."""
    state = {key: torch.tensor(float(k)).expand(shape) for k, (key, shape) in enumerate(manifest["keys"].items())}
    for key, value in manifest.get("computed", {}).items():
        shape = manifest["keys"][key]
        if shape:  # not a level's scale
            state[key] = torch.full(shape, value["fill"]) if isinstance(value, dict) else torch.tensor(value)
    return state
