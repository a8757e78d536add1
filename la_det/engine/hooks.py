"""Hooks that Detectron2 does not have. Their order after a step is lock, checkpoint, evaluation, log.

A checkpoint holds the step's values until a line of `metrics.json` has them. So a process can be killed at any moment:
an interrupted evaluation is done again, and no line is lost.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.events import EventWriter

from la_det.checkpoint import Checkpointer
from la_det.engine.lock import RunLock
from la_det.errors import UserError
from la_det.signals import Interrupted, stop_signals

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Periods:
    """Periods of a training in iterations. At the end of the training, all is done once more.

    Attributes:
        log: period of writing the log.
        evaluation: period of evaluations, each after a checkpoint; 0: only at the end.
        checkpoint: period of checkpoints.
    """

    log: int
    evaluation: int
    checkpoint: int

    def evaluates(self, done: int) -> bool:
        """Whether an evaluation follows `done` iterations (the end of the training aside)."""
        return self.evaluation > 0 and done % self.evaluation == 0

    def saves(self, done: int) -> bool:
        """Whether a checkpoint follows `done` iterations (the end of the training aside)."""
        return done % self.checkpoint == 0 or self.evaluates(done)

    def writes(self, done: int) -> bool:
        """Whether the log is written after `done` iterations (the end of the training aside)."""
        return done % self.log == 0 or self.saves(done)


class LockHook(HookBase):
    """Ends the training when it has lost its output folder, before the other hooks write to the folder."""

    def __init__(self, lock: RunLock) -> None:
        self.lock = lock

    def after_step(self) -> None:
        if self.lock.lost:
            raise UserError(f"{self.lock.path.parent}: {self.lock.lost}; this training ends at {self.trainer.iter}")


class CheckpointHook(HookBase):
    """Saves a checkpoint when it is time, when the training is asked to stop, and at its end.

    It keeps the newest `max_to_keep` checkpoints beside the final one. Unlike Detectron2's hook it runs in every
    process, since each adds its random state. It finds old checkpoints on disk, so a resumed run deletes them, too.
    """

    def __init__(self, checkpointer: Checkpointer, periods: Periods, max_to_keep: int) -> None:
        self.checkpointer = checkpointer
        self.periods = periods
        self.max_to_keep = max_to_keep

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter:
            self.checkpointer.save("model_final")
        elif self.periods.saves(done) or self.trainer.stopping:
            name = f"model_{self.trainer.iter:07d}"
            self.checkpointer.save(name)
            if comm.is_main_process():
                self._delete_before(name)

    def after_train(self) -> None:
        if self.trainer.finished and self.trainer.ends_early:
            self.checkpointer.save("model_final")

    def _delete_before(self, newest: str) -> None:
        saved = sorted(Path(self.checkpointer.save_dir).glob("model_[0-9]*.pth"))
        # Higher iterations belong to an earlier run.
        for path in [path for path in saved if path.stem <= newest][: -self.max_to_keep]:
            path.unlink()


class EvaluationHook(HookBase):
    """Evaluates when it is time and at the end, then as iteration `max_iter`. The results go to the storage."""

    def __init__(
        self, periods: Periods, evaluate: Callable[[], Mapping[str, Any]], best: BestCheckpoint | None = None
    ) -> None:
        """
        Args:
            evaluate: returns results by task and metric; in all processes but the main one, nothing.
            best: gets the results of each evaluation.
        """
        self.periods = periods
        self.evaluate = evaluate
        self.best = best

    def before_train(self) -> None:
        start = self.trainer.start_iter
        if self.trainer.unwritten and self.periods.evaluates(start) and start < self.trainer.max_iter:
            logger.info("The evaluation after iteration %d was interrupted, and is done again", start - 1)
            self._run()
        elif self.best is not None and self.best.ends():
            self._end()

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self.periods.evaluates(done) and done < self.trainer.max_iter and not self.trainer.stopping:
            self._run()

    def after_train(self) -> None:
        if self.trainer.finished and not self.trainer.evaluated:
            self._run()

    def _run(self) -> None:
        try:
            with stop_signals.deferred(False):  # there is a checkpoint, and a resumed run evaluates again
                results = flatten_results_dict(self.evaluate() or {})
        except Interrupted as stop:
            state = "during an evaluation, before which the run is saved; go on with --resume"
            raise Interrupted(stop.number, state) from None
        results = {name: float(value) for name, value in results.items()}
        self.trainer.storage.put_scalars(**results, smoothing_hint=False)
        if self.best is not None:
            self.best.take(results, self.trainer.storage.iter)
            if self.best.ends():
                self._end()
        comm.synchronize()  # evaluation may take longer in some processes

    def _end(self) -> None:
        self.trainer.ends_early = self.trainer.evaluated = True


class BestCheckpoint:
    """Saves the weights with the best value of a metric as `model_best.pth`, and ends a training that gets no better.

    Args:
        checkpointer: saves the file. It must not gather from other processes: only the main process saves.
        history: the lines of `metrics.json` of the run until now, for a resumed run.
        metric: name of the metric in `metrics.json`, such as "bbox/AP".
        mode: "max" if larger values are better, "min" if smaller values are better.
        patience: number of evaluations without a better value after which the training ends; 0: never.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        history: Sequence[Mapping[str, float | None]],
        *,
        metric: str,
        mode: str = "max",
        patience: int = 0,
    ) -> None:
        self.checkpointer = checkpointer
        self.metric = metric
        self.sign = {"max": 1, "min": -1}[mode]
        self.patience = patience
        values = [line[metric] for line in history if metric in line]
        self._values = [-math.inf if value is None else self.sign * value for value in values]  # None: no number

    def take(self, results: Mapping[str, float], iteration: int) -> None:
        """Take the results of an evaluation, which only the main process has.

        Raises:
            UserError: the results do not have the metric.
        """
        if not comm.is_main_process():
            return
        if self.metric not in results:
            names = ", ".join(name for name in results if "-" not in name)
            raise UserError(f"train.best.metric={self.metric}: no such metric; the evaluation has {names}")
        value = self.sign * results[self.metric]
        if value > max(self._values, default=-math.inf):
            self.checkpointer.save("model_best", mark_last=False, iteration=iteration)
            logger.info("%s %.4f is the best until now", self.metric, results[self.metric])
        self._values.append(value if math.isfinite(value) else -math.inf)

    def ends(self) -> bool:
        """Whether the training ends; the answer is the same in every process."""
        last, before = self._values[-self.patience :], self._values[: -self.patience]
        ends = comm.all_gather(bool(self.patience and before) and max(last) <= max(before))[0]
        if ends:
            logger.info("%s got no better in %d evaluations: the training ends", self.metric, self.patience)
        return ends


class WriterHook(HookBase):
    """Writes the log when it is time, the last time with the final evaluation's results. Runs in every process."""

    def __init__(self, periods: Periods, writers: Sequence[EventWriter], lock: RunLock) -> None:
        """
        Args:
            writers: writers of the log; none in all processes but the main one.
            lock: lock of the output folder.
        """
        self.periods = periods
        self.writers = writers
        self.lock = lock

    def before_train(self) -> None:
        if self.trainer.unwritten:
            self._write()

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self.trainer.stopping and self.periods.evaluates(done):
            return  # the resumed run evaluates, and then writes both
        if self.periods.writes(done) or done == self.trainer.max_iter or self.trainer.stopping:
            self.trainer.flush()
            self._write()

    def after_train(self) -> None:
        try:
            if self.trainer.finished:
                self._write()
        finally:
            for writer in self.writers:
                with suppress(OSError):
                    writer.close()

    def _write(self) -> None:
        self.lock.check()
        folder = self.lock.path.parent
        try:
            for writer in self.writers:
                writer.write()
        except OSError as error:
            remedy = "free some space" if folder.is_dir() else "the folder is gone; make it again"
            raise UserError(
                f"{folder}: cannot write the log ({error.strerror or error}); {remedy}, and go on with --resume"
            ) from error
