"""Cost of a detector's inference: parameters, operations, and time of each part."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from la_det.benchmark.train import giga_flops
from la_det.predictor import Predictor

PARTS = ("preprocess", "backbone", "head", "postprocess")


@dataclass(frozen=True)
class Analysis:
    """Costs for one image.

    Attributes:
        input_size: (height, width) of the network's input, with padding.
        parameters: number of parameters of backbone and head that inference needs, in millions.
        training_parameters: number of parameters that only training needs, in millions.
        giga_flops: multiply-adds of backbone and head, in 10^9.
        milliseconds: median of each of `PARTS`. Resizing belongs to the first part, NMS and masks to the last part.
    """

    input_size: tuple[int, int]
    parameters: dict[str, float]
    training_parameters: float
    giga_flops: dict[str, float]
    milliseconds: dict[str, float]


def analyze(predictor: Predictor, image: np.ndarray, repeats: int) -> Analysis:
    """Measure a dense detector's predictor on a BGR image [H, W, 3]. Parts that only training needs are removed."""
    model = predictor.model
    whole = _mega_parameters(model)
    model.inference_only()
    milliseconds, input_size = _inference_times(predictor, image, repeats)
    parameters = {"backbone": _mega_parameters(model.backbone), "head": _mega_parameters(model.head)}
    flops = dict(zip(("backbone", "head"), giga_flops(model, *input_size), strict=True))
    return Analysis(input_size, parameters, whole - _mega_parameters(model), flops, milliseconds)


def _mega_parameters(module: nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def _inference_times(
    predictor: Predictor, image: np.ndarray, repeats: int, warmup: int = 2
) -> tuple[dict[str, float], tuple[int, int]]:
    """Median milliseconds of each part over `repeats` calls, and the network's input size."""
    model = predictor.model
    marks: list[float] = []
    sizes: list[tuple[int, int]] = []

    def mark(*_) -> None:
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        marks.append(time.perf_counter())

    hooks = [
        model.backbone.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape[-2:]))),
        model.backbone.register_forward_pre_hook(mark),
        model.backbone.register_forward_hook(mark),
        model.head.register_forward_hook(mark),
    ]
    try:
        for _ in range(warmup + repeats):
            mark()
            predictor([image])
            mark()
    finally:
        for hook in hooks:
            hook.remove()
    durations = 1000 * np.diff(np.reshape(marks, (warmup + repeats, len(PARTS) + 1)), axis=1)[warmup:]
    return {part: statistics.median(column) for part, column in zip(PARTS, durations.T, strict=True)}, sizes[-1]
