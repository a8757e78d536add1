"""Detectron2's `metrics.json`: one JSON object per line and iteration."""

from __future__ import annotations

import json
from pathlib import Path

from la_det.checkpoint.checkpointer import replacing


def drop_metrics_from(path: Path, iteration: int) -> None:
    """Remove what a killed run wrote for `iteration` and later, and its half-written last line.

    The resumed run writes these iterations again.
    """
    if not path.exists():
        return
    kept = [line for line in path.read_text().splitlines(keepends=True) if _is_before(line, iteration)]
    with replacing(path) as file:
        file.write("".join(kept).encode())


def _is_before(line: str, iteration: int) -> bool:
    try:
        return json.loads(line)["iteration"] < iteration
    except json.JSONDecodeError:
        return False
