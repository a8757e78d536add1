"""Times of the parts of a training step, beside Detectron2's RetinaNet on the same backbone and images."""

import argparse
import json
import math
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from detectron2 import model_zoo as detectron2_model_zoo
from detectron2.config import instantiate
from detectron2.data import transforms as T
from detectron2.layers import ShapeSpec
from detectron2.utils.events import EventStorage
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import conv_flop_count, get_shape
from omegaconf import DictConfig
from tabulate import tabulate
from torch import Tensor, nn

from la_det import model_zoo
from la_det.engine.setup import load_config

PARTS = ("data", "network", "matching", "losses", "backward", "optimizer")


@dataclass
class StepTimes:
    """Milliseconds of each part, with one entry per call."""

    device: torch.device
    enabled: bool = True  # whether calls are timed
    milliseconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def time(self, part: str, run: Callable, *args, **kwargs):
        """The result of a call, whose time is recorded."""
        if not self.enabled:
            return run(*args, **kwargs)
        start = self._now()
        result = run(*args, **kwargs)
        self.milliseconds[part].append(1000 * (self._now() - start))
        return result

    def timed(self, part: str, run: Callable) -> Callable:
        """The same function, with each call timed."""
        return lambda *args, **kwargs: self.time(part, run, *args, **kwargs)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def shapes_config(name: str, short_edge: int, batch_size: int) -> DictConfig:
    """The named config on the 256-pixel Shapes images, resized to `short_edge`."""
    config = load_config(name)
    config.dataloader = model_zoo.get_config("common/data/shapes").shapes
    config.dataloader.train.total_batch_size = batch_size
    config.dataloader.train.mapper.image_format = config.model.input_format
    config.dataloader.train.mapper.augmentations = [T.ResizeShortestEdge(short_edge), T.RandomFlip()]
    config.model.num_classes = 10
    return config


def detectron2_model(name: str, ours: DictConfig) -> DictConfig:
    """Detectron2's "retinanet" or "fcos" with the backbone, head size, classes and pixel statistics of our model."""
    theirs = detectron2_model_zoo.get_config(f"common/models/{name}.py").model
    theirs.backbone = ours.backbone
    channels = ours.backbone.out_channels
    theirs.head.input_shape = [ShapeSpec(channels=channels)] * len(theirs.head_in_features)
    theirs.head.conv_dims = [channels] * ours.head.cls_tower.get("num_convs", 4)
    if name == "fcos":
        theirs.head.norm = _group_norm
        theirs.head._target_ = _with_float32_predictions(theirs.head._target_)
    theirs.num_classes = ours.num_classes
    theirs.pixel_mean, theirs.pixel_std = ours.pixel_mean, ours.pixel_std
    return theirs


def _with_float32_predictions(head: type[nn.Module]) -> type[nn.Module]:
    """The head with float32 predictions also under autocast, as ours. Detectron2's FCOS loss fails on other types."""

    class Float32Head(head):
        def forward(self, features: list[Tensor]) -> tuple[list[Tensor], ...]:
            return tuple([x.float() for x in levels] for levels in super().forward(features))

    return Float32Head


def _group_norm(channels: int) -> nn.GroupNorm:
    """Detectron2's "GN", also for one channel: its head builds such a norm, which current torch refuses as "GN"."""
    return nn.GroupNorm(min(32, channels), channels)


def harmless_optimizer(config: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The config's optimizer, with a learning rate so small that the model cannot diverge while it is timed."""
    config.optimizer.lr = 1e-6
    config.optimizer.params.model = model
    return instantiate(config.optimizer)


def step_times(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[list[dict]],
    device: torch.device,
    steps: int,
    warmup: int = 2,
    amp_dtype: torch.dtype | None = None,
) -> dict[str, float]:
    """Median milliseconds per part over `steps` training steps, under autocast to `amp_dtype` if one is given.

    "losses" does not include "matching". For a model that is not ours, "network" is the whole forward pass, with
    matching and losses. Timing the parts makes a GPU wait for the end of each. So on a GPU "step" is the median of as
    many earlier steps, timed as a whole.
    """
    model = model.to(device).train()
    scaler = torch.amp.GradScaler(device.type, enabled=amp_dtype is torch.float16)
    times, whole = StepTimes(device), StepTimes(device)
    if hasattr(model, "criteria"):
        model.predict = times.timed("network", model.predict)
        model.losses = times.timed("losses", model.losses)
        for criterion in model.criteria:
            criterion.assign = times.timed("matching", criterion.assign)
    forward = model if hasattr(model, "criteria") else times.timed("network", model)

    def step() -> None:
        batch = times.time("data", next, batches)
        with torch.autocast(device.type, amp_dtype, enabled=amp_dtype is not None):
            loss = sum(forward(batch).values())
        times.time("backward", scaler.scale(loss).backward)
        times.time("optimizer", _update, scaler, optimizer)

    with EventStorage():
        for times.enabled in (False, True) if device.type == "cuda" else (True,):
            for _ in range(warmup + steps):
                whole.time("step", step)
    criteria = max(len(times.milliseconds["matching"]) // (warmup + steps), 1)
    medians = {
        part: _median_step(times.milliseconds[part], criteria if part == "matching" else 1, warmup) for part in PARTS
    }
    medians["losses"] = max(medians["losses"] - medians["matching"], 0.0)
    medians["step"] = statistics.median(whole.milliseconds["step"][warmup : warmup + steps])
    return medians


def _update(scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer) -> None:
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()


def _median_step(milliseconds: list[float], calls_per_step: int, warmup: int) -> float:
    if not milliseconds:
        return 0.0
    per_step = [sum(milliseconds[i : i + calls_per_step]) for i in range(0, len(milliseconds), calls_per_step)]
    return statistics.median(per_step[warmup:])


class _Network(nn.Module):
    """Backbone and head on a batch of images, to count operations."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.backbone, self.head = model.backbone, model.head
        self.in_features = getattr(model, "in_features", None) or model.head_in_features

    def forward(self, images: Tensor):
        features = self.backbone(images)
        predictions = self.head([features[name] for name in self.in_features])
        # The tracer needs tensors as results, and leaves out operations that lead to none of them.
        return predictions if isinstance(predictions, tuple) else [p.maps | p.image_maps for p in predictions.values()]


def _deform_conv_flops(inputs: list, outputs: list) -> int:
    """Multiply-adds of the plain convolution; interpolation is not counted."""
    return conv_flop_count(*map(get_shape, (*inputs[:2], outputs[0])))


def _attention_flops(inputs: list, outputs: list) -> int:
    """Multiply-adds of queries with keys, and of weights with values."""
    (*batch, queries, channels), (*_, keys, value_channels) = get_shape(inputs[0]), get_shape(inputs[2])
    return math.prod(batch) * queries * keys * (channels + value_channels)


def giga_flops(model: nn.Module, height: int, width: int) -> tuple[float, float]:
    """Multiply-adds of backbone and head for one image, in units of 10^9 (fvcore).

    Element-wise operations, pooling and softmax are not counted.
    """
    analysis = FlopCountAnalysis(_Network(model).cpu(), torch.zeros(1, 3, height, width))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.set_op_handle("torchvision::deform_conv2d", _deform_conv_flops)
    analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_flops)
    by_module = analysis.by_module()
    return by_module["backbone"] / 1e9, by_module["head"] / 1e9


def run(args: argparse.Namespace) -> None:
    """Time the steps of every config and of RetinaNet beside it, as `la-det bench train` says, and print a table."""
    torch.set_num_threads(args.threads or torch.get_num_threads())
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, device {device}", file=sys.stderr)
    figures = {}
    for name in args.configs:
        config = shapes_config(name, args.short_edge, args.batch_size)
        for label, node in (
            (name, config.model),
            ("Detectron2 RetinaNet", detectron2_model("retinanet", config.model)),
        ):
            print(label, file=sys.stderr)
            model = instantiate(node)
            batches = iter(instantiate(config.dataloader.train))
            optimizer = harmless_optimizer(config, model)
            times = step_times(model, optimizer, batches, torch.device(device), args.steps)
            flops = giga_flops(instantiate(node), args.short_edge, args.short_edge)
            key = label if label == name else f"{label}, backbone of {name}"
            figures[key] = {**times, "backbone GFLOPs": flops[0], "head GFLOPs": flops[1]}
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    columns = ["step", *PARTS, "backbone GFLOPs", "head GFLOPs"]
    rows = [[name, *(f"{row[column]:.1f}" for column in columns)] for name, row in figures.items()]
    header = ["model"] + [f"{c} ms" if "GFLOPs" not in c else c for c in columns]
    print(tabulate(rows, header, tablefmt="github", disable_numparse=True))
