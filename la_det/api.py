"""Training and evaluation from Python: what `la-det train` and `la-det eval` do in every process."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig

from la_det.engine import train as engine
from la_det.engine.fitting import Fitting
from la_det.engine.log import RunLog
from la_det.engine.setup import load_config, setup
from la_det.engine.train import Results
from la_det.signals import Interrupted, stop_signals


def train(
    config: str | Path | DictConfig,
    *,
    dataset: str | None = None,
    epochs: float | None = None,
    image_size: int | None = None,
    backbone: str | None = None,
    batch: int | None = None,
    weights: str | Path | None = None,
    overrides: Sequence[str] = (),
    output: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    break_lock: bool = False,
) -> Results:
    """Train a config in this process, or in this one of torchrun's processes.

    Ctrl-C (SIGINT) and the signal `train.preemption_signal` end the training after the present step, with a checkpoint.

    Args:
        config: a name of `la_det.model_zoo.list()`, a LazyConfig file, or a config, which stays as it is.
        dataset: your own data, in a form of `la_det.data.sources` such as "coco:IMAGES,TRAIN.json,IMAGES,VAL.json". The
            number of classes follows from it, and without `epochs` the length of the training.
        epochs: length of the training.
        image_size: short side of test images, pixels; other sizes of images keep their ratio to it.
        backbone: "resnet18", "resnet34", "resnet50", "resnet101" or "timm:NAME", with weights of ImageNet.
        batch: images of all processes in a step; the learning rate grows linearly with it, the iterations
            inversely.
        weights: trained weights to begin with, file or address; the number of classes may be another.
        overrides: options of the config to change, each as "key=value". They win over all that is said above.
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
    fitting = Fitting(dataset, epochs, image_size, backbone, batch, None if weights is None else str(weights))
    with RunLog() as log:
        cfg = load_config(config, overrides, fitting)
        if output is not None:
            cfg.train.output_dir = str(output)
        setup(cfg, "ignore" if resume else "warn")
        with _signals_handled(cfg.train.get("preemption_signal")):
            return engine.train(cfg, resume, overwrite, break_lock, log)


def evaluate(
    config: str | Path | DictConfig,
    weights: str | Path | None = None,
    *,
    dataset: str | None = None,
    overrides: Sequence[str] = (),
    output: str | Path | None = None,
    resume: bool = False,
) -> Results:
    """Evaluate trained weights on the test sets of a config.

    Results and predictions are also written, to `evaluation/<name of the weights' file>` in the output folder.

    Args:
        config, dataset, overrides, output: see `train`.
        weights: file or address of trained weights. None: those of the config's `train.init_checkpoint`.
        resume: evaluate the last checkpoint in the output folder instead.

    Returns:
        Task -> metric -> value, such as `results["bbox"]["AP"]`; empty in all but the main process.

    Raises:
        UserError: config, data or weights cannot be used; the message says which, and what to do.
    """
    with RunLog() as log:
        cfg = load_config(config, overrides, Fitting(dataset), keep_length=True)
        if weights is not None:
            cfg.train.init_checkpoint = str(weights)
        if output is not None:
            cfg.train.output_dir = str(output)
        setup(cfg, "ignore")  # whatever is loaded is compared when it is loaded
        return engine.evaluate_checkpoint(cfg, resume, log)


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
