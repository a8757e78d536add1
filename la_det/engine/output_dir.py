"""What an output folder remembers of a run: Detectron2's `metrics.json` and the mark of the last checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

from la_det.checkpoint.checkpointer import replacing


def prepare_output_dir(folder: Path, start: int) -> Path:
    """Make the folder that of a run about to do iteration `start`; return the path of its `metrics.json`.

    A new run (`start` 0) keeps an earlier one's metrics as `metrics.old.json` and forgets which checkpoint was last,
    lest a later `--resume` goes on with the wrong run. A resumed one drops what was written after its checkpoint.
    """
    metrics = folder / "metrics.json"
    if start == 0:
        (folder / "last_checkpoint").unlink(missing_ok=True)
        if metrics.exists():
            metrics.replace(folder / "metrics.old.json")
    elif metrics.exists():
        kept = [line for line in metrics.read_text().splitlines(keepends=True) if _is_before(line, start)]
        with replacing(metrics) as file:
            file.write("".join(kept).encode())
    return metrics


def _is_before(line: str, iteration: int) -> bool:
    try:
        return json.loads(line)["iteration"] < iteration
    except json.JSONDecodeError:  # the last line of a killed run can be half written
        return False
