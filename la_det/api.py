"""Training and evaluation from Python: what `la-det train` and `la-det eval` do in every process."""

from __future__ import annotations

import copy
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig

from la_det.engine import train as engine
from la_det.engine.log import RunLog
from la_det.engine.setup import apply_overrides, load_config, setup
from la_det.engine.train import Results
from la_det.signals import Interrupted, stop_signals


def train(
    config: str | Path | DictConfig,
    *,
    overrides: Sequence[str] = (),
    dataset: str | None = None,
    output: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    break_lock: bool = False,
) -> Results:
    """Train a config in this process, or in this one of torchrun's processes.

    Ctrl-C (SIGINT) and the signal `train.preemption_signal` end the training after the present step, with a checkpoint.

    Args:
        config: a name of `la_det.model_zoo.list()`, a LazyConfig file, or a config, which stays as it is.
        overrides: options of the config to change, each as "key=value".
        dataset: your own data, in a form of `la_det.data.sources` such as "coco:IMAGES,TRAIN.json,IMAGES,VAL.json";
            the number of classes follows from it.
        output: the output folder, instead of the config's `train.output_dir`.
        resume: go on from the last checkpoint in the output folder, if there is one.
        overwrite: keep a run that is in the output folder under a new name beside it, and start anew.
        break_lock: take the output folder from another training that uses it.

    Returns:
        Task -> metric -> value of the last evaluation, such as `results["bbox"]["AP"]`; empty in all but the main
        process.

    Raises:
        UserError: config, data or weights cannot be used, or the output folder holds a run. The message says which file
            or option, and what to do.
    """
    with RunLog() as log:
        cfg = _config(config, overrides, output)
        setup(cfg, dataset)
        with _signals_handled(cfg.train.get("preemption_signal")):
            return engine.train(cfg, resume, overwrite, break_lock, log)


def evaluate(
    config: str | Path | DictConfig,
    weights: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    dataset: str | None = None,
    output: str | Path | None = None,
    resume: bool = False,
) -> Results:
    """Evaluate trained weights on the test sets of a config.

    Results and predictions are also written, to `evaluation/<name of the weights' file>` in the output folder.

    Args:
        config, overrides, dataset, output: see `train`.
        weights: file or address of trained weights. None: those of the config's `train.init_checkpoint`.
        resume: evaluate the last checkpoint in the output folder instead.

    Returns:
        Task -> metric -> value, such as `results["bbox"]["AP"]`; empty in all but the main process.

    Raises:
        UserError: config, data or weights cannot be used; the message says which, and what to do.
    """
    with RunLog() as log:
        cfg = _config(config, overrides, output)
        if weights is not None:
            cfg.train.init_checkpoint = str(weights)
        setup(cfg, dataset)
        return engine.evaluate_checkpoint(cfg, resume, log)


def _config(config: str | Path | DictConfig, overrides: Sequence[str], output: str | Path | None) -> DictConfig:
    if isinstance(config, DictConfig):
        cfg = apply_overrides(copy.deepcopy(config), overrides)
    else:
        cfg = load_config(str(config), overrides)
    if output is not None:
        cfg.train.output_dir = str(output)
    return cfg


@contextmanager
def _signals_handled(preemption: str | None) -> Iterator[None]:
    """Let a training end with a checkpoint. In a Python session, its end by Ctrl-C is a KeyboardInterrupt as usual."""
    in_session = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else la_det.engine.launch handles it
    names = [*(["SIGINT"] if in_session else []), *([preemption] if preemption else [])]
    try:
        with stop_signals.handled(*names):
            yield
    except Interrupted as stop:
        if in_session and stop.number == signal.SIGINT:
            raise KeyboardInterrupt(stop.message) from None
        raise
