"""Training and evaluation of a LazyConfig: what `tools/train_net.py` runs in every process."""

from __future__ import annotations

import argparse
import logging
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from detectron2.config import instantiate
from detectron2.engine import hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, EventWriter, TensorboardXWriter
from omegaconf import DictConfig
from tabulate import tabulate
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from la_det.checkpoint import Checkpointer
from la_det.checkpoint.recipe import apply_recipe
from la_det.config import class_node
from la_det.data.records import check_num_classes
from la_det.data.sources import labels_of
from la_det.engine.diagnostics import AssignmentDiagnostics
from la_det.engine.hooks import CheckpointHook
from la_det.engine.output_dir import prepare_output_dir
from la_det.engine.own_dataset import check_classes, check_data, data_classes, names_of_test_sets
from la_det.engine.setup import device_of, load_config, setup
from la_det.engine.trainer import Trainer
from la_det.engine.visualize import save_predictions
from la_det.engine.writers import MetricsWriter
from la_det.errors import UserError
from la_det.evaluation.duplicates import objects_of
from la_det.evaluation.nms_gap import NMSGapEvaluator, variant_inference
from la_det.modeling import AssignmentDetector

logger = logging.getLogger(__name__)

Results = Mapping[str, Mapping[str, float]]


def main(args: argparse.Namespace) -> None:
    """Train or evaluate as `args` (of tools/train_net.py) says."""
    cfg = load_config(args.config_file, args.opts)
    setup(cfg, args.dataset)
    if args.eval_only:
        evaluate_checkpoint(cfg, last=args.resume)
    else:
        train(cfg, resume=args.resume)


def train(cfg: DictConfig, resume: bool = False) -> Results:
    """Train `cfg.model`, from the last checkpoint in the output folder if `resume`; return the last evaluation."""
    check_data(cfg)
    model = build_model(cfg)
    logger.info("%s with %.2f M parameters", type(model).__name__, sum(p.numel() for p in model.parameters()) / 1e6)
    ema = build_ema(cfg, model)
    cfg.optimizer.params.model = model
    loader = instantiate(cfg.dataloader.train)
    check_num_classes(cfg.dataloader.train.dataset.names, class_node(cfg.model).num_classes)
    stream = loader.batch_sampler
    if stream.batch_size % cfg.train.grad_accum_steps:
        raise UserError(
            f"train.grad_accum_steps={cfg.train.grad_accum_steps} does not divide the {stream.batch_size} images of a "
            "process's batch (dataloader.train.total_batch_size over the number of processes)"
        )
    trainer = Trainer(
        create_ddp_model(model, device_ids=_ddp_devices(model), **cfg.train.ddp),
        loader,
        instantiate(cfg.optimizer),
        amp_dtype=getattr(torch, cfg.train.amp.dtype) if cfg.train.amp.enabled else None,
        grad_accum_steps=cfg.train.grad_accum_steps,
        clip_grad_norm=cfg.train.clip_grad.max_norm,
        clip_per_parameter=cfg.train.clip_grad.per_parameter,
        ema=ema,
        output_dir=cfg.train.output_dir,
    )
    # Before loading, so that a checkpoint restores the last look; the timer first, so that it leaves looks out.
    trainer.register_hooks([hooks.IterationTimer(), _diagnostics(cfg, model, loader)])
    classes = data_classes(cfg)
    named = {} if classes is None else {"classes": classes}
    checkpointer = build_checkpointer(cfg, model, ema, trainer=trainer, stream=stream, **named)
    resume = resume and _all_have_checkpoint(checkpointer)
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resume)
    start = trainer.iter + 1 if resume else 0  # a checkpoint holds the iteration that it was saved after
    stream.start = start

    results: Results = {}

    def evaluate() -> Results:
        nonlocal results
        results = evaluate_model(cfg, model, ema)
        return results

    trainer.register_hooks(
        [
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            CheckpointHook(checkpointer, **cfg.train.checkpointer),
            hooks.EvalHook(cfg.train.eval_period, evaluate),
            hooks.PeriodicWriter(_writers(cfg, start), cfg.train.log_period) if comm.is_main_process() else None,
        ]
    )
    trainer.train(start, cfg.train.max_iter)
    if comm.is_main_process():
        save_predictions(model, cfg.dataloader.test, Path(cfg.train.output_dir, "predictions.png"))
    return results


def trained_model(cfg: DictConfig, weights: str) -> nn.Module:
    """The model in evaluation mode with trained weights; `cfg` gets what converted weights need.

    Raises:
        UserError: no weights are named, or they cannot be read or are of another model.
    """
    if not weights:
        raise UserError("no trained weights: name a checkpoint, a file or an address")
    apply_recipe(cfg, weights)
    model = build_model(cfg).eval()
    build_checkpointer(cfg, model, None, strict=True).load(weights)
    return model


def evaluate_checkpoint(cfg: DictConfig, last: bool = False) -> Results:
    """Evaluate `cfg.train.init_checkpoint`, or the `last` one in the output folder, and its EMA weights if enabled."""
    model = build_model(cfg).eval()
    ema = build_ema(cfg, model)
    checkpointer = build_checkpointer(cfg, model, ema, strict=True)
    path = checkpointer.get_checkpoint_file() if last else cfg.train.init_checkpoint
    if not path:
        raise UserError(
            "--eval-only: give train.init_checkpoint=FILE, or --resume for the output folder's last checkpoint"
        )
    checkpointer.load(path)
    check_classes(cfg, path)
    if ema is not None and ema.n_averaged == 0:
        raise UserError(f"{path}: it holds no EMA weights; evaluate it with train.ema.enabled=False")
    return evaluate_model(cfg, model, ema)


def evaluate_model(cfg: DictConfig, model: nn.Module, ema: AveragedModel | None = None) -> Results:
    """Run `cfg.dataloader.evaluator` on every test set and log the table of results.

    Results of the EMA weights are those of tasks `<task>_ema`; of several test sets, those of `<test set>/<task>`.
    Detections on a test set without annotations are left in the folder `inference` of the output folder.
    """
    models = {"": model} if ema is None else {"": model, "_ema": ema.module}
    names, results = names_of_test_sets(cfg), {}
    for name, label in zip(names, labels_of(names), strict=True):
        prefix = f"{label}/" if len(names) > 1 else ""
        records = instantiate({**cfg.dataloader.test.dataset, "names": name})
        check_num_classes(name, class_node(cfg.model).num_classes)
        loader, objects = instantiate({**cfg.dataloader.test, "dataset": records}), objects_of(records)
        for suffix, evaluated in models.items():
            _broadcast_buffers(evaluated)
            evaluator = _evaluator(cfg, name, f"{label}{suffix}", annotated="annotations" in records[0])
            with variant_inference(evaluated) as inference:
                metrics = inference_on_dataset(evaluated, loader, NMSGapEvaluator(evaluator, objects, inference))
            results |= {f"{prefix}{task}{suffix}": values for task, values in metrics.items()}
    if results:  # only the main process has them
        logger.info("Results:\n%s", results_table(results))
    return results


def _evaluator(cfg: DictConfig, name: str, label: str, annotated: bool) -> DatasetEvaluator:
    """The config's evaluator for one test set; without annotations, detections are all that it gives."""
    changes = {"dataset_name": name} if "dataset_name" in cfg.dataloader.evaluator else {}
    if not annotated and cfg.dataloader.evaluator.get("output_dir") is None:
        changes["output_dir"] = str(Path(cfg.train.output_dir, "inference", label))
    return instantiate({**cfg.dataloader.evaluator, **changes})


def results_table(results: Results) -> str:
    """One row per task, in one table those with the same metrics; per-category ones (`AP-<name>`) are left out."""
    tables = defaultdict(list)
    for task, metrics in results.items():
        row = {"task": task} | {name: value for name, value in metrics.items() if "-" not in name}
        tables[tuple(row)].append(row)
    return "\n\n".join(tabulate(rows, headers="keys", tablefmt="pipe", floatfmt=".2f") for rows in tables.values())


def build_model(cfg: DictConfig) -> nn.Module:
    """The model on its device, with convolutions in the memory format `cfg.train` asks for."""
    memory_format = torch.channels_last if cfg.train.channels_last else torch.preserve_format
    return instantiate(cfg.model).to(device_of(cfg), memory_format=memory_format)


def build_ema(cfg: DictConfig, model: nn.Module) -> AveragedModel | None:
    """Moving average of parameters and buffers with `cfg.train.ema.decay`, if it is enabled."""
    if not cfg.train.ema.enabled:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(cfg.train.ema.decay), use_buffers=True)


def build_checkpointer(
    cfg: DictConfig, model: nn.Module, ema: AveragedModel | None, strict: bool = False, **checkpointables: object
) -> Checkpointer:
    """Checkpointer of the output folder for the model, its EMA if there is one, and `checkpointables`."""
    if ema is not None:
        checkpointables["ema"] = ema
    return Checkpointer(
        model, cfg.train.output_dir, allow_pickle=cfg.train.allow_pickle, strict=strict, **checkpointables
    )


def _diagnostics(cfg: DictConfig, model: nn.Module, loader: DataLoader) -> AssignmentDiagnostics | None:
    """Looks at as many examples as a batch has, spread over the data set; None if it is off or the model has none.

    The examples are drawn from the seed, and leave the loader's stream and all random states alone.
    """
    if not (cfg.train.diagnostics_period and isinstance(model, AssignmentDetector)):
        return None
    num_images, batch_size = len(loader.dataset.records), loader.batch_sampler.batch_size
    chosen = np.linspace(0, num_images - 1, min(batch_size, num_images)).astype(int).tolist()
    batch = [loader.dataset[i, i] for i in chosen] if comm.is_main_process() else []
    return AssignmentDiagnostics(batch, cfg.train.diagnostics_period)


def _all_have_checkpoint(checkpointer: Checkpointer) -> bool:
    seen = comm.all_gather(checkpointer.has_checkpoint())
    if any(seen) and not all(seen):
        raise UserError(f"{checkpointer.save_dir}: not every machine has the last checkpoint; share or copy the folder")
    return seen[0]


def _broadcast_buffers(model: nn.Module) -> None:
    """Give every process the main one's batch statistics, which a checkpoint holds: evaluation is of one model."""
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def _ddp_devices(model: nn.Module) -> list[int] | None:
    return [comm.get_local_rank()] if next(model.parameters()).is_cuda else None


def _writers(cfg: DictConfig, start: int) -> list[EventWriter]:
    metrics = prepare_output_dir(Path(cfg.train.output_dir), start)
    return [
        CommonMetricPrinter(cfg.train.max_iter),
        MetricsWriter(str(metrics), window_size=1),  # exact values, so that runs can be compared to the last bit
        TensorboardXWriter(cfg.train.output_dir),
    ]
