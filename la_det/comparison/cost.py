"""Cost of a training step of each scheme, measured in rounds over all schemes: drift of the machine hits all alike."""

from __future__ import annotations

import json
import logging
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from detectron2.config import instantiate

from la_det.benchmark.memory import peak_extra_mib
from la_det.benchmark.train import detectron2_model, harmless_optimizer, step_times
from la_det.build import build_model, device_of
from la_det.comparison.results import device_name, read_record, versions, write_record
from la_det.comparison.schemes import ENDINGS, config_name
from la_det.engine.setup import load_config
from la_det.errors import UserError, one_line_errors, why_it_ended

logger = logging.getLogger(__name__)

BASELINES = {"detectron2_fcos": "fcos", "detectron2_retinanet": "retinanet"}


@dataclass(frozen=True)
class CostRecord:
    """Costs of a scheme's training step on the data of its config.

    A round has the median milliseconds of the step and its parts ("step", "data", "network", "matching", "losses",
    "backward", "optimizer"), and "peak_mib", the peak memory beyond that of the model before training. `parameters` is
    the number of the model's parameters.
    """

    scheme: str
    data: str
    overrides: list[str]
    steps: int
    versions: dict[str, str]
    device: str
    threads: int
    parameters: int
    rounds: list[dict[str, float]]

    def __post_init__(self) -> None:
        if self.data not in ENDINGS:
            raise ValueError(f"{self.data} is not a data set of {' or '.join(ENDINGS)}")
        if not self.rounds or not all({"step", "matching", "peak_mib"} <= figures.keys() for figures in self.rounds):
            raise ValueError("no figures of a round")

    def median(self, figure: str) -> float:
        """Median of a figure over the rounds."""
        return statistics.median(figures[figure] for figures in self.rounds)


def cost_file(results: Path, scheme: str, data: str) -> Path:
    """File for the cost of a scheme in the folder of results."""
    return results / f"{scheme}{ENDINGS[data]}_cost.json"


def iterations_in(seconds: float, scheme: str, data: str, results: Path) -> int:
    """Number of training steps of a scheme that fit into `seconds`, by its cost record in `results`.

    Raises:
        UserError: there is no record, or it is damaged.
    """
    path = cost_file(results, scheme, data)
    if not path.exists():
        raise UserError(f"{path}: no such file; first measure the scheme with the command cost")
    return max(1, round(1000 * seconds / read_record(path, CostRecord).median("step")))


def measure_all(
    schemes: Sequence[str], data: str, overrides: list[str], rounds: int, steps: int, results: Path
) -> None:
    """Measure each scheme until its record in `results` has `rounds` rounds.

    Raises:
        UserError: a record is damaged or was made with other settings. If a scheme cannot be measured, the error comes
            after all other schemes have been measured.
    """
    failed: dict[str, UserError] = {}
    for number in range(1, rounds + 1):
        for scheme in schemes:
            path = cost_file(results, scheme, data)
            before = read_record(path, CostRecord) if path.exists() else None
            if scheme in failed or (before and len(before.rounds) >= number):
                continue
            try:
                now = measure_in_fresh_process(scheme, data, overrides, steps)
            except UserError as error:
                failed[scheme] = error
                logger.error("%s", error)
                continue
            if before:
                if replace(before, rounds=now.rounds) != now:
                    raise UserError(f"{path}: measured with other settings or on another machine; delete it")
                now = replace(now, rounds=before.rounds + now.rounds)
            write_record(path, now)
            logger.info("round %d, %s: %.0f ms per step", number, scheme, now.rounds[-1]["step"])
    if failed:
        raise UserError("; ".join(map(str, failed.values())))


def measure_in_fresh_process(scheme: str, data: str, overrides: list[str], steps: int) -> CostRecord:
    """The result of `measure` in a process of its own, so that no scheme inherits the memory of another."""
    arguments = json.dumps([scheme, data, overrides, steps])
    code = "import sys, json; from la_det.comparison.cost import _child; _child(*json.loads(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, arguments], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{scheme} on {data}: measuring failed ({why_it_ended(done.returncode, done.stderr)})")
    return CostRecord(**json.loads(done.stdout.splitlines()[-1]))


def _child(scheme: str, data: str, overrides: list[str], steps: int) -> None:
    with one_line_errors():
        print(json.dumps(asdict(measure(scheme, data, overrides, steps))))


def measure(scheme: str, data: str, overrides: list[str], steps: int) -> CostRecord:
    """One round of a scheme, or of one of `BASELINES`: Detectron2's models with the backbone and data of our FCOS."""
    config = config_name("fcos" if scheme in BASELINES else scheme, data)
    cfg = load_config(config, overrides)
    if scheme in BASELINES:
        cfg.model = detectron2_model(BASELINES[scheme], cfg.model)
        if "filter_empty" in cfg.dataloader.train.dataset:  # Detectron2's FCOS fails on an image without objects
            cfg.dataloader.train.dataset.filter_empty = True
    device, model = device_of(cfg), build_model(cfg)
    amp_dtype = getattr(torch, cfg.train.amp.dtype) if cfg.train.amp.enabled else None
    times: dict[str, float] = {}

    def train() -> None:
        batches = iter(instantiate(cfg.dataloader.train))
        times.update(
            step_times(model, harmless_optimizer(cfg, model), batches, torch.device(device), steps, amp_dtype=amp_dtype)
        )

    peak = peak_extra_mib(train, device)
    return CostRecord(
        scheme=scheme,
        data=data,
        overrides=overrides,
        steps=steps,
        versions=versions(),
        device=device_name(device),
        threads=torch.get_num_threads(),
        parameters=sum(p.numel() for p in model.parameters()),
        rounds=[{name: round(value, 3) for name, value in {**times, "peak_mib": peak}.items()}],
    )
