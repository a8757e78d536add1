"""Training and evaluating runs by `tools/train_net.py`, in sequence or one per GPU."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from detectron2.config import LazyConfig

from la_det import model_zoo
from la_det.comparison.records import (
    Run,
    RunRecord,
    device_name,
    is_finished,
    read_evaluations,
    run_file,
    versions,
    write_record,
)
from la_det.engine.setup import device_of

logger = logging.getLogger(__name__)

PARTS = 3  # of a training, with an evaluation at the end of each
POLL_SECONDS = 0.2


class Runner:
    """Does runs that have no record yet.

    Args:
        train_net: the training command.
        results: folder of the records.
        output: folder of the runs' output folders.
    """

    def __init__(self, train_net: Path, results: Path, output: Path) -> None:
        self.train_net = train_net
        self.results = results
        self.output = output

    def do(self, runs: Iterable[Run], gpus: Sequence[str | None] = (None,)) -> list[Run]:
        """Train each run, one per GPU at a time, and return those that failed.

        `gpus` are values of CUDA_VISIBLE_DEVICES; None leaves it as it is. A run that was cut short starts anew.

        Raises:
            UserError: a run's record is damaged or of another budget; nothing has been started then.
        """
        runs = list(runs)
        waiting = [run for run in runs if not is_finished(run, self.results)]
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
                    if process.returncode:
                        failed.append(run)
                        logger.error("%s failed: %s", run.name, self._last_line(run))
                    else:
                        self._finish(run)
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
        environment = os.environ if gpu is None else os.environ | {"CUDA_VISIBLE_DEVICES": gpu}
        logger.info("%s: %d iterations, console in %s", run.name, run.max_iter, self._console(run))
        with self._console(run).open("w") as console:
            return subprocess.Popen(self._command(run), env=environment, stdout=console, stderr=subprocess.STDOUT)

    def _command(self, run: Run) -> list[str]:
        return [
            sys.executable,
            str(self.train_net),
            "--config-file",
            str(model_zoo.get_config_file(run.config)),
            f"train.max_iter={run.max_iter}",
            f"train.seed={run.seed}",
            f"train.eval_period={math.ceil(run.max_iter / PARTS)}",
            f"train.output_dir={self.output / run.name}",
            *run.overrides,
        ]

    def _finish(self, run: Run) -> None:
        folder = self.output / run.name
        evaluations = read_evaluations(folder / "metrics.json", run.max_iter)
        device = device_of(LazyConfig.load(str(folder / "config.yaml")))
        record = RunRecord(
            **asdict(run),
            versions=versions(),
            device=device_name(device),
            threads=torch.get_num_threads(),
            evaluations=evaluations,
        )
        write_record(run_file(self.results, run), record)
        shown = {name: value for name, value in evaluations[-1].items() if name.endswith("/AP")}
        logger.info("%s: %s", run.name, ", ".join(f"{name} {value}" for name, value in shown.items()))

    def _console(self, run: Run) -> Path:
        return self.output / run.name / "console.txt"

    def _last_line(self, run: Run) -> str:
        lines = self._console(run).read_text().splitlines()
        return lines[-1] if lines else "it printed nothing"
