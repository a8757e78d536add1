"""Training and evaluation of a LazyConfig: what `la_det.train` and `la_det.evaluate` do."""

from __future__ import annotations

import json
import logging
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from detectron2.config import instantiate
from detectron2.engine import hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, inference_on_dataset
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, EventWriter
from omegaconf import DictConfig, OmegaConf
from tabulate import tabulate
from torch import nn
from torch.utils.data import DataLoader

from la_det.build import build_model, load_model
from la_det.checkpoint import Checkpointer, newest_intact
from la_det.checkpoint.checkpointer import replacing
from la_det.checkpoint.recipe import RECIPE, check_number_of_classes, training_recipe
from la_det.checkpoint.safe_pickle import DAMAGES
from la_det.config import class_node, read_saved_config, save_yaml_config
from la_det.data.records import check_num_classes, check_records
from la_det.data.sources import labels_of
from la_det.engine.diagnostics import AssignmentDiagnostics
from la_det.engine.hooks import BestCheckpoint, CheckpointHook, EvaluationHook, LockHook, Periods, WriterHook
from la_det.engine.lock import RunLock
from la_det.engine.log import RunLog
from la_det.engine.optimizers import EMA
from la_det.engine.output_dir import OutputDir
from la_det.engine.own_dataset import check_classes, check_data, data_classes, names_of_test_sets
from la_det.engine.predictions import PredictionsWriter
from la_det.engine.resume import changes, check_and_show
from la_det.engine.trainer import Trainer
from la_det.engine.visualize import save_predictions
from la_det.engine.writers import MetricsWriter, TensorBoardWriter, finite_or_none
from la_det.errors import UserError
from la_det.evaluation.batches import OneSizeBatches
from la_det.evaluation.duplicates import objects_of
from la_det.evaluation.nms_gap import NMSGapEvaluator, variant_inference
from la_det.modeling import AssignmentDetector
from la_det.modeling.images import divisor_of

logger = logging.getLogger(__name__)

Results = Mapping[str, Mapping[str, float]]


def train(
    cfg: DictConfig,
    resume: bool = False,
    overwrite: bool = False,
    break_lock: bool = False,
    log: RunLog | None = None,
) -> Results:
    """Train `cfg.model` and return the last evaluation's results.

    Nothing in the output folder changes before the data and the checkpoint are read.

    Args:
        resume: go on from the newest intact checkpoint in the output folder, if there is one.
        overwrite: move a run that is in the output folder to a new name beside it. Without `overwrite` and `resume`,
            the folder must not hold a run, except of a single iteration, which is moved in the same way.
        break_lock: take the output folder from another training that uses it.
        log: gets a file in the output folder.

    Raises:
        UserError: the output folder holds a run or is in use, or data or checkpoint cannot be read.
    """
    output = OutputDir(cfg.train.output_dir)
    job = torchrun_job()
    # torchrun starts again whatever has failed, also an attempt that was refused the folder.
    resume = resume or comm.all_gather(output.is_of(job))[0]
    with output.made(), RunLock(output.folder).held(break_lock) as lock:
        if comm.is_main_process() and not resume:
            output.check_movable() if overwrite else output.check_new()
        comm.synchronize()  # the other processes build nothing if the main process may not write
        run = _Run(cfg, resume, lock)
        if comm.is_main_process():
            if not resume and output.holds_run():  # a run to move away, or a trial
                lock.release()
                logger.warning("%s: the run that was there is now %s", output.folder, output.move_away())
                lock.acquire()
            output.remove_temporary_files()
            output.start_at(run.start)
            save_config(cfg, output.folder)
            output.note(job)
        comm.synchronize()
        if log is not None:
            log.open(output.folder)
        results = run.train(output)
    return results


class _Run:
    """A training that has read its model, data and checkpoint, and has not changed its output folder yet."""

    def __init__(self, cfg: DictConfig, resume: bool, lock: RunLock) -> None:
        self.cfg = cfg
        self.lock = lock
        check_data(cfg)
        self.model = model = build_model(cfg)
        parameters = sum(p.numel() for p in model.parameters())
        logger.info("%s with %.2f M parameters", type(model).__name__, parameters / 1e6)
        self.ema = build_ema(cfg, model)
        cfg.optimizer.params.model = model
        loader = instantiate(cfg.dataloader.train)
        check_num_classes(cfg.dataloader.train.dataset.names, class_node(cfg.model).num_classes)
        stream = loader.batch_sampler
        self.trainer = Trainer(
            create_ddp_model(model, device_ids=_ddp_devices(model), **cfg.train.ddp),
            loader,
            instantiate(cfg.optimizer),
            amp_dtype=getattr(torch, cfg.train.amp.dtype) if cfg.train.amp.enabled else None,
            grad_accum_steps=cfg.train.grad_accum_steps,
            clip_grad_norm=cfg.train.clip_grad.max_norm,
            clip_per_parameter=cfg.train.clip_grad.per_parameter,
            ema=self.ema,
            log_period=cfg.train.log_period,
            output_dir=cfg.train.output_dir,
        )
        del cfg.optimizer.params.model  # the config is saved without it
        own_hooks = instantiate(cfg.train.get("hooks") or [])
        # Before loading, so that a checkpoint restores their state. The timer comes first: it does not time the looks.
        self.trainer.register_hooks([hooks.IterationTimer(), _diagnostics(cfg, model, loader), *own_hooks])
        classes = data_classes(cfg)
        self.classes = {} if classes is None else {"classes": classes}
        self.checkpointer = build_checkpointer(
            cfg, model, self.ema, lock, trainer=self.trainer, stream=stream, **self.classes
        )
        self.start = self._load(resume)
        if self.ema is not None:
            self.ema.begin_at(model)  # an evaluation can come before the first step
        stream.start = self.start

    def _load(self, resume: bool) -> int:
        """Read the run's checkpoint or the initial weights, and return the first iteration to do."""
        cfg = self.cfg
        last = _same_everywhere(newest_intact(cfg.train.output_dir)) if resume else ""
        if not last:
            if resume:
                logger.warning(
                    "--resume: %s HOLDS NO CHECKPOINT; the training begins at iteration 0", cfg.train.output_dir
                )
            self.checkpointer.load(cfg.train.init_checkpoint, checkpointables=[])
            return 0
        check_number_of_classes(cfg, last)
        try:
            saved = read_saved_config(Path(cfg.train.output_dir, "config.yaml"))
        except UserError as error:
            logger.warning("What changed since the checkpoint is not known: %s", error)
        else:
            check_and_show(changes(saved, cfg), last)
        self.checkpointer.resume(last)
        start = self.trainer.iter + 1  # a checkpoint holds the iteration that it was saved after
        if cfg.train.max_iter < start:
            raise UserError(
                f"train.max_iter={cfg.train.max_iter}: {last} is of iteration {start - 1} already; give more iterations"
            )
        return start

    def train(self, output: OutputDir) -> Results:
        """Do the training, in the output folder that now belongs to it."""
        cfg, trainer, start = self.cfg, self.trainer, self.start
        if start:
            finished = start == cfg.train.max_iter
            log_has = comm.all_gather((output.has_line(start - 1, True), output.has_line(start, False)))[0]
            trainer.unwritten, trainer.evaluated = not log_has[0], finished and log_has[1]
        periods = Periods(cfg.train.log_period, cfg.train.eval_period, cfg.train.checkpointer.period)
        results: Results = {}

        def evaluate() -> Results:
            nonlocal results
            trainer.flush()
            results = evaluate_model(cfg, self.model, self.ema)
            return results

        best = None
        if cfg.train.get("best") and cfg.train.best.metric:
            weights = build_checkpointer(cfg, self.model, self.ema, self.lock, **self.classes)
            best = BestCheckpoint(weights, output.read_metrics(), **cfg.train.best)
        writers = _writers(cfg, output, start) if comm.is_main_process() else []
        trainer.register_hooks(
            [
                hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
                LockHook(self.lock),
                CheckpointHook(self.checkpointer, periods, cfg.train.checkpointer.max_to_keep),
                EvaluationHook(periods, evaluate, best),
                WriterHook(periods, writers, self.lock),
            ]
        )
        trainer.train(start, cfg.train.max_iter)
        if comm.is_main_process():
            self.lock.check()
            save_predictions(self.model, cfg.dataloader.test, output.folder / "predictions.png")
            results = results or logged_results(output.read_metrics(), names_of_test_sets(cfg))  # of a finished run
        return results


def evaluate_checkpoint(cfg: DictConfig, last: bool = False, log: RunLog | None = None) -> Results:
    """Evaluate `cfg.train.init_checkpoint`, or the `last` checkpoint of the output folder, with EMA weights if enabled.

    Config, log, `results.json` and `predictions.json` go to `evaluation/<name of the checkpoint>` in the output folder.
    """
    path = _same_everywhere(newest_intact(cfg.train.output_dir)) if last else cfg.train.init_checkpoint
    if not path:
        raise UserError(
            "--eval-only: give train.init_checkpoint=FILE, or --resume for the output folder's last checkpoint"
        )
    masks = OmegaConf.select(cfg, "dataloader.train.mapper.use_instance_mask", default=False)
    check_records(names_of_test_sets(cfg), class_node(cfg.model).num_classes, masks)
    model, others = load_model(cfg, path)
    check_classes(cfg, path)
    ema = build_ema(cfg, model)
    if ema is not None:
        if "ema" not in others:
            raise UserError(f"{path}: it holds no EMA weights; evaluate it with train.ema.enabled=False")
        try:
            ema.load_state_dict(others["ema"])
        except DAMAGES as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{path}: its EMA weights are not of this model ({reason}); evaluate it with train.ema.enabled=False"
            ) from error
    folder = Path(cfg.train.output_dir, "evaluation", Path(path).stem)
    folder.mkdir(parents=True, exist_ok=True)
    if log is not None:
        log.open(folder)
    results = evaluate_model(cfg, model, ema, folder)
    if comm.is_main_process():
        save_config(cfg, folder)
        with replacing(folder / "results.json") as file:
            strict = {task: finite_or_none(metrics) for task, metrics in results.items()}
            file.write(json.dumps({"checkpoint": path, **strict}, indent=1, allow_nan=False).encode())
        logger.info("Results and predictions are in %s", folder)
    return results


def evaluate_model(
    cfg: DictConfig, model: nn.Module, ema: EMA | None = None, predictions: Path | None = None
) -> Results:
    """Run `cfg.dataloader.evaluator` on every test set and log the table of results.

    The tasks of EMA weights are called `<task>_ema`. With several test sets, tasks are called `<test set>/<task>`.

    Args:
        predictions: folder for `predictions.json` and `predictions_ema.json`; with several test sets, it has a folder
            for each. None: only detections on test sets without annotations are written, to `inference/<test set>` in
            the output folder.
    """
    models = {"": model} if ema is None else {"": model, "_ema": ema.module}
    names, results = names_of_test_sets(cfg), {}
    for name, label in zip(names, labels_of(names), strict=True):
        prefix = f"{label}/" if len(names) > 1 else ""
        records = instantiate({**cfg.dataloader.test.dataset, "names": name})
        check_num_classes(name, class_node(cfg.model).num_classes)
        loader, objects = instantiate({**cfg.dataloader.test, "dataset": records}), objects_of(records)
        of_data_set = _evaluator(cfg, name)
        for suffix, evaluated in models.items():
            _broadcast_buffers(evaluated)
            path = predictions and predictions / prefix / f"predictions{suffix}.json"
            if path is None and "annotations" not in records[0]:
                path = Path(cfg.train.output_dir, "inference", label, f"predictions{suffix}.json")
            with variant_inference(evaluated) as inference:
                evaluators = [NMSGapEvaluator(of_data_set, objects, inference)]
                if path is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    evaluators.append(PredictionsWriter(name, path))
                batches = OneSizeBatches(loader, divisor_of(evaluated))
                metrics = inference_on_dataset(evaluated, batches, DatasetEvaluators(evaluators))
            results |= {f"{prefix}{task}{suffix}": values for task, values in metrics.items()}
    if results:  # only the main process has them
        logger.info("Results:\n%s", results_table(results))
    return results


def _evaluator(cfg: DictConfig, name: str) -> DatasetEvaluator:
    """The config's evaluator for one test set."""
    node = cfg.dataloader.evaluator
    return instantiate({**node, "dataset_name": name} if "dataset_name" in node else node)


def save_config(cfg: DictConfig, folder: Path) -> None:
    """Write `config.yaml` to the folder, as a whole or not at all."""
    whole = folder / f".config.yaml.{os.getpid()}"
    save_yaml_config(cfg, whole)
    whole.replace(folder / "config.yaml")


def logged_results(lines: Sequence[Mapping[str, float | None]], test_sets: Sequence[str]) -> Results:
    """The results of the evaluation whose values are in the last of the lines of `metrics.json`; NaN where it has null.

    Args:
        test_sets: names of the test sets that were evaluated.
    """
    prefixes = [f"{label}/" for label in labels_of(test_sets)] if len(test_sets) > 1 else [""]
    results: dict[str, dict[str, float]] = defaultdict(dict)
    for name, value in lines[-1].items() if lines else ():
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
        task, is_metric, metric = name.removeprefix(prefix).partition("/")  # names of classes in metrics can have a /
        if is_metric and task != "assignment":  # the diagnostics' values
            results[prefix + task][metric] = math.nan if value is None else value
    return dict(results)


def results_table(results: Results) -> str:
    """One row per task, and one table per set of metrics, without the metrics of single categories (`AP-<name>`)."""
    tables = defaultdict(list)
    for task, metrics in results.items():
        row = {"task": task} | {name: value for name, value in metrics.items() if "-" not in name}
        tables[tuple(row)].append(row)
    return "\n\n".join(tabulate(rows, headers="keys", tablefmt="pipe", floatfmt=".2f") for rows in tables.values())


def torchrun_job() -> str:
    """Name of torchrun's job, equal in all attempts of the main process; "" without torchrun.

    It is the name of torchrun's folder for the job, which is random. The run id is "none" unless the user gives one.
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")  # <folder>/attempt_0/0/error.json
    return Path(file).parent.parent.parent.name if file else ""


def build_ema(cfg: DictConfig, model: nn.Module) -> EMA | None:
    """Moving average of parameters and buffers with `cfg.train.ema.decay`; None unless it is enabled."""
    if not cfg.train.ema.enabled:
        return None
    return EMA(model, cfg.train.ema.decay)


def build_checkpointer(
    cfg: DictConfig, model: nn.Module, ema: EMA | None, lock: RunLock, **checkpointables: object
) -> Checkpointer:
    """Checkpointer of the output folder for the model, its EMA if there is one, and `checkpointables`.

    It writes only while the lock is held. Its files hold the facts that say to which configs their weights belong.
    """
    if ema is not None:
        checkpointables["ema"] = ema
    options = {"allow_pickle": cfg.train.allow_pickle, "before_write": lock.check}
    extras = {RECIPE: training_recipe(cfg)}
    return Checkpointer(model, cfg.train.output_dir, **options, extras=extras, **checkpointables)


def _diagnostics(cfg: DictConfig, model: nn.Module, loader: DataLoader) -> AssignmentDiagnostics | None:
    """Diagnostics on as many examples as a batch has, spread over the data set; None if off or without matchers.

    The examples are drawn from the seed. The loader's stream and all random states stay as they are.
    """
    if not (cfg.train.diagnostics_period and isinstance(model, AssignmentDetector)):
        return None
    num_images, batch_size = len(loader.dataset.records), loader.batch_sampler.batch_size
    chosen = np.linspace(0, num_images - 1, min(batch_size, num_images)).astype(int).tolist()
    batch = [loader.dataset[i, i] for i in chosen] if comm.is_main_process() else []
    return AssignmentDiagnostics(batch, cfg.train.diagnostics_period)


def _same_everywhere(checkpoint: str) -> str:
    found = comm.all_gather(checkpoint)
    if len(set(found)) > 1:
        raise UserError(
            f"{max(found)}: not every machine has this last checkpoint; share the output folder, or copy it"
        )
    return checkpoint


def _broadcast_buffers(model: nn.Module) -> None:
    """Give every process the batch statistics of the main process, which a checkpoint holds: all evaluate one model."""
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def _ddp_devices(model: nn.Module) -> list[int] | None:
    return [comm.get_local_rank()] if next(model.parameters()).is_cuda else None


def _writers(cfg: DictConfig, output: OutputDir, start: int) -> list[EventWriter]:
    # TensorBoard forgets what a killed run wrote for iterations without a line in metrics.json: they are written again.
    kept = start + output.has_line(start, False) if output.has_line(start - 1, True) else start - 1
    return [
        CommonMetricPrinter(cfg.train.max_iter),
        TensorBoardWriter(cfg.train.output_dir, purge_step=max(kept, 0) or None),
        MetricsWriter(str(output.metrics), window_size=1),  # exact values, so that runs can be compared to the last bit
        *instantiate(cfg.train.get("writers") or []),
    ]
