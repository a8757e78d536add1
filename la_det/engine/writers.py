"""Writers for the numbers of a training besides the console."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from detectron2.utils.events import EventWriter, JSONWriter, TensorboardXWriter, get_event_storage

from la_det.errors import UserError

RUN_ID = "wandb_run_id"


class MetricsWriter(JSONWriter):
    """Writes Detectron2's `metrics.json` in strict JSON: a metric that is NaN, such as the AP of no object, is null."""

    def write(self) -> None:
        new: dict[int, dict[str, float]] = defaultdict(dict)
        for name, (value, iteration) in get_event_storage().latest_with_smoothing_hint(self._window_size).items():
            if iteration > self._last_write:
                new[iteration][name] = value
        for iteration, values in sorted(new.items()):
            line = json.dumps(finite_or_none(values) | {"iteration": iteration}, sort_keys=True, allow_nan=False)
            self._file_handle.write(line + "\n")
        self._last_write = max(new, default=self._last_write)
        self._file_handle.flush()
        os.fsync(self._file_handle.fileno())


def finite_or_none(values: Mapping[str, float]) -> dict[str, float | None]:
    """The values, with None for NaN and infinity, which strict JSON does not have."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


class TensorBoardWriter(TensorboardXWriter):
    """Writes TensorBoard's file, up to the disk: a killed run leaves every step that `metrics.json` has."""

    def write(self) -> None:
        super().write()
        self._writer.flush()


class WandbWriter(EventWriter):
    """Sends scalars to Weights & Biases. The output folder keeps the run's id, under which a resumed run goes on.

    In a config: `train.writers = [L(WandbWriter)(output_dir="${...output_dir}", project="detectors")]`.

    Args:
        output_dir: output folder of the training.
        project, name: project and name of the run.
        mode: when the scalars are sent.
            "online": at once.
            "offline": later, by `wandb sync`.
            "disabled": never.
        options: more arguments of `wandb.init`.

    Raises:
        UserError: wandb is not installed.
    """

    def __init__(self, output_dir: str, project: str, name: str | None = None, mode: str = "online", **options: Any):
        id_file = Path(output_dir, RUN_ID)
        run_id = id_file.read_text().strip() if id_file.is_file() else None
        self._run = _import_wandb().init(
            project=project, name=name, mode=mode, dir=output_dir, id=run_id, resume="allow", **options
        )
        id_file.write_text(self._run.id)
        self._last_write = -1

    def write(self) -> None:
        by_iteration: dict[int, dict[str, float]] = {}
        for name, (value, iteration) in get_event_storage().latest_with_smoothing_hint(1).items():
            if iteration > self._last_write:
                by_iteration.setdefault(iteration, {})[name] = value
        for iteration, values in sorted(by_iteration.items()):
            self._run.log(values, step=iteration)
            self._last_write = iteration

    def close(self) -> None:
        self._run.finish()


def _import_wandb() -> ModuleType:
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise UserError("wandb is missing: pip install 'la_det[tracking]', or leave train.writers empty") from error
    return wandb
