"""Trains and evaluates runs by `la-det train`, one after the other or one per GPU."""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch
from omegaconf import OmegaConf

from la_det.build import device_of
from la_det.comparison.results import (
    Run,
    RunRecord,
    check_folder,
    device_name,
    read_evaluations,
    run_file,
    versions,
    write_record,
)
from la_det.config import load_yaml_config
from la_det.errors import UserError, one_line_errors, why_it_ended

logger = logging.getLogger(__name__)

TRAIN = (sys.executable, "-m", "la_det", "train")
PARTS = 3  # parts of a training, with an evaluation at the end of each
POLL_SECONDS = 0.2
# Options that the comparison sets, and EMA, whose results have no place in its tables.
FIXED_OPTIONS = {
    "train.max_iter",
    "train.seed",
    "train.eval_period",
    "train.output_dir",
    "train.auto_scale_lr.enabled",
    "train.ema.enabled",
}


class Runner:
    """Does runs that have no record yet.

    Args:
        results: folder of the records.
        output: folder of the runs' output folders.
        command: the training command, without config and options.
    """

    def __init__(self, results: Path, output: Path, command: Sequence[str] = TRAIN) -> None:
        self.command = command
        self.results = results
        self.output = output

    def do(self, runs: Iterable[Run], gpus: Sequence[str | None] = (None,)) -> list[Run]:
        """Train each run, one per GPU at a time, and return the runs that failed.

        `gpus` are values of CUDA_VISIBLE_DEVICES; None leaves this variable as it is. A run that was cut short starts
        anew; its old folder is kept beside the new one. A run that is named twice is done once.

        Raises:
            UserError: before anything is started, if a run overrides one of FIXED_OPTIONS; see also `check_folder`.
        """
        runs = list({run.name: run for run in runs}.values())
        _check_overrides(runs)
        check_folder(self.results, runs)
        waiting = [run for run in runs if not run_file(self.results, run).exists()]
        logger.info("%d runs, %d of them finished before", len(runs), len(runs) - len(waiting))
        free, running, failed = list(gpus), [], []
        start, todo = time.monotonic(), len(waiting)
        try:
            while waiting or running:
                while waiting and free:
                    run, gpu = waiting.pop(0), free.pop(0)
                    running.append((run, gpu, self._start(run, gpu)))
                time.sleep(POLL_SECONDS)
                for entry in [entry for entry in running if entry[2].poll() is not None]:
                    run, gpu, process = entry
                    running.remove(entry)
                    free.append(gpu)
                    try:
                        if process.returncode:
                            printed = self._console(run).read_text(errors="replace")
                            raise UserError(why_it_ended(process.returncode, printed))
                        self._finish(run, gpu)
                    except (UserError, OSError) as error:  # OSError: the run's metrics.json or config.yaml is gone
                        failed.append(run)
                        logger.error("%s failed: %s", run.name, error)
                    minutes = (time.monotonic() - start) / 60
                    left = len(waiting) + len(running)
                    logger.info("%.1f min, about %.1f more", minutes, minutes * left / (todo - left))
        finally:
            for _, _, process in running:
                process.terminate()
                process.wait()
        return failed

    def _start(self, run: Run, gpu: str | None) -> subprocess.Popen:
        folder = self.output / run.name
        folder.mkdir(parents=True, exist_ok=True)
        logger.info("%s: %d iterations, console in %s", run.name, run.max_iter, self._console(run))
        with self._console(run).open("w") as console:
            return subprocess.Popen(self._command(run), env=_environment(gpu), stdout=console, stderr=subprocess.STDOUT)

    def _command(self, run: Run) -> list[str]:
        return [
            *self.command,
            run.config,
            "--overwrite",
            f"train.max_iter={run.max_iter}",
            f"train.seed={run.seed}",
            f"train.eval_period={math.ceil(run.max_iter / PARTS)}",
            f"train.output_dir={self.output / run.name}",
            *run.overrides,
        ]

    def _finish(self, run: Run, gpu: str | None) -> None:
        folder = self.output / run.name
        evaluations = read_evaluations(folder / "metrics.json", run.max_iter)
        machine = _machine(load_yaml_config(folder / "config.yaml").train.device, gpu)
        record = RunRecord(**asdict(run), versions=versions(), **machine, evaluations=evaluations)
        write_record(run_file(self.results, run), record)
        shown = {name: value for name, value in evaluations[-1].items() if name.endswith("/AP")}
        logger.info("%s: %s", run.name, ", ".join(f"{name} {value}" for name, value in shown.items()))

    def _console(self, run: Run) -> Path:
        return self.output / f"{run.name}.console.txt"  # not in the folder, which --overwrite moves


def _check_overrides(runs: Iterable[Run]) -> None:
    for override in {override for run in runs for override in run.overrides}:
        if override.lstrip("+~").partition("=")[0] in FIXED_OPTIONS:
            raise UserError(f"{override}: a comparison cannot change this option; leave it out")


def _environment(gpu: str | None) -> Mapping[str, str]:
    return os.environ if gpu is None else os.environ | {"CUDA_VISIBLE_DEVICES": gpu}


@cache
def _machine(device: str, gpu: str | None) -> dict[str, str | int]:
    """Name of a `train.device` and number of threads of runs, from a process in their environment.

    This process would make a context on a GPU that another run may use.
    """
    code = "import sys; from la_det.comparison.run import _print_machine; _print_machine(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, device], env=_environment(gpu), capture_output=True, text=True)
    if done.returncode:
        raise UserError(why_it_ended(done.returncode, done.stderr))
    return json.loads(done.stdout.splitlines()[-1])


def _print_machine(device: str) -> None:
    with one_line_errors():
        device = device_of(OmegaConf.create({"train": {"device": device}}))
    print(json.dumps({"device": device_name(device), "threads": torch.get_num_threads()}))
