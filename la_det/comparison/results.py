"""One small JSON file for each finished run."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import detectron2
import torch
import torchvision

import la_det
from la_det.checkpoint.checkpointer import write_json
from la_det.comparison.schemes import scheme_and_data
from la_det.errors import UserError

# Metric name -> value (None for NaN), and "iteration" -> number of iterations done.
Evaluation = dict[str, float | None]


@dataclass(frozen=True)
class Run:
    """A training to do: `budget` is {"max_iter": n} or {"seconds": s}, and `max_iter` the resulting iterations."""

    config: str
    seed: int
    budget: dict[str, int]
    max_iter: int
    overrides: list[str]

    @property
    def name(self) -> str:
        return f"{self.config.rpartition('/')[2]}_seed{self.seed}"


@dataclass(frozen=True)
class RunRecord(Run):
    """A finished training, with its evaluations in order."""

    versions: dict[str, str]
    device: str
    threads: int
    evaluations: list[Evaluation]

    def __post_init__(self) -> None:
        scheme_and_data(self.config)
        if not self.evaluations or not all("iteration" in evaluation for evaluation in self.evaluations):
            raise ValueError("no evaluations")


Record = TypeVar("Record")


def read_record(path: Path, kind: type[Record]) -> Record:
    """Read a dataclass that `write_record` wrote.

    Raises:
        UserError: the file is damaged or of another kind.
    """
    try:
        return kind(**json.loads(path.read_text()))
    except (ValueError, TypeError, AttributeError, UserError) as error:
        raise UserError(f"{path}: not a {kind.__name__} ({error}); delete it to have it made again") from error


def write_record(path: Path, record: object) -> None:
    """Write a dataclass as JSON. A killed process leaves the whole file or none."""
    write_json(path, asdict(record))


def run_file(results: Path, run: Run) -> Path:
    """File for a run's record in the folder of results."""
    return results / f"{run.name}.json"


def check_folder(results: Path, runs: Iterable[Run]) -> None:
    """Check that records in the folder of results were made as these runs will be: a report compares nothing else.

    Raises:
        UserError: a record on the same data is damaged, or of another budget or with other overrides.
    """
    of_data = {scheme_and_data(run.config)[1]: run for run in runs}
    for path in sorted(results.glob("*_seed*.json")):
        record = read_record(path, RunRecord)
        run = of_data.get(scheme_and_data(record.config)[1], record)
        for key in ("budget", "overrides"):
            if getattr(record, key) != getattr(run, key):
                raise UserError(
                    f"{path}: a run with {key} {getattr(record, key)}, not {getattr(run, key)}; "
                    "choose another --results or delete it"
                )


def read_evaluations(metrics: Path, max_iter: int) -> list[Evaluation]:
    """The evaluations in a `metrics.json` of Detectron2. Their names are those that appear after the last iteration.

    Raises:
        UserError: there is no evaluation, or the file is damaged.
    """
    try:
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
        # Only the last evaluation is written as iteration `max_iter`: the last step is iteration `max_iter` - 1.
        names = {name for line in lines if line["iteration"] == max_iter for name in line} - {"iteration"}
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{metrics}: it has a line that is no record of metrics ({error})") from error
    evaluations = [
        {"iteration": min(line["iteration"] + 1, max_iter)}
        | {name: _finite(value) for name, value in line.items() if name in names}
        for line in lines
        if names & line.keys()
    ]
    if not evaluations:
        raise UserError(f"{metrics}: it has no evaluation after {max_iter} iterations")
    return evaluations


def _finite(value: float | None) -> float | None:
    return round(value, 4) if value is not None and math.isfinite(value) else None


def versions() -> dict[str, str]:
    """Versions of the packages that decide a result."""
    packages = {package.__name__: package.__version__ for package in (la_det, torch, torchvision, detectron2)}
    return packages | {"python": platform.python_version()}


def device_name(device: str) -> str:
    """The GPU's product name, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device
