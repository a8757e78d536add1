"""Times of the parts of inference, eager, compiled and in ONNX Runtime, for several models in turn.

Every round runs all cases once, one after the other. So a machine that gets slower or faster does so for all cases.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from tabulate import tabulate
from torch import nn

from la_det.benchmark.train import StepTimes
from la_det.build import build_model, load_model
from la_det.data.shapes import SHAPES, ShapesSpec, draw_scene
from la_det.deploy import Detector
from la_det.engine.setup import load_config
from la_det.errors import UserError
from la_det.export.formats import Options, write_onnx
from la_det.export.graph import ExportGraph
from la_det.export.metadata import metadata_of, nms_of
from la_det.modeling import AssignmentDetector
from la_det.modeling.inference import to_instances

PARTS = ("preprocess", "network", "postprocess")
COLUMNS = (*PARTS, "total")
OTHER_NMS = 0.6  # for schemes without NMS, to measure what NMS would cost
# One function per part. Each takes the result of the function before.
Stages = tuple[Callable, Callable, Callable]


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        model: name of the config.
        nms: IoU threshold of NMS; None: no NMS.
        runtime: "eager", "compile" or "onnx".
        batch_size: number of images in a batch.
    """

    model: str
    nms: float | None
    runtime: str
    batch_size: int


def images(spec: ShapesSpec, count: int, size: tuple[int, int]) -> list[dict]:
    """Images of Shapes, resized to (height, width), in the form that a data mapper returns."""
    drawn = (draw_scene(spec, "val", i)[0] for i in range(count))
    resized = (cv2.resize(image, size[::-1])[:, :, ::-1] for image in drawn)
    return [{"image": torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))} for x in resized]


def load(name: str, weights: Path | None, inputs: list[dict], candidates: int) -> AssignmentDetector:
    """A config's model with trained weights, or with random weights that give about `candidates` per image."""
    config = load_config(name)
    config.train.device = "cpu"
    if weights is not None:
        return load_model(config, str(weights))[0].inference_only()
    torch.manual_seed(0)
    model = build_model(config).inference_only()
    spread(model, inputs, candidates)
    return model


@torch.no_grad()
def spread(model: AssignmentDetector, inputs: list[dict], candidates: int) -> None:
    """Sets random weights with which `candidates` probabilities per image exceed the threshold, and boxes overlap.

    In an untrained model, every probability is the prior probability, below the threshold: NMS would have no work.
    """
    predictor = model.head.predictors[model.inference_branch]
    nn.init.normal_(predictor.logits.weight, std=0.1)
    nn.init.normal_(predictor.boxes.weight, std=0.02)
    nn.init.constant_(predictor.boxes.bias, 2.0)
    tensor = model.preprocess_image(inputs).tensor
    predictions = model.predict(tensor)[model.inference_branch]
    levels = [model.inference.score.dense(predictions, i) for i in range(len(predictions.priors.grid_sizes))]
    p = torch.cat([x.flatten() for x in levels])
    lowest = p.topk(candidates * len(inputs)).values[-1]
    predictor.logits.bias += torch.logit(torch.tensor(model.inference.score_threshold)) - torch.logit(lowest)


def torch_stages(model: AssignmentDetector, nms: float | None, compiled: bool = False) -> Stages:
    """The stages of the detector's code, with or without NMS; `compiled` compiles backbone and head."""
    predict = torch.compile(model.predict, dynamic=False) if compiled else model.predict

    def network(batch):
        return batch, predict(batch.tensor, [model.inference_branch])[model.inference_branch]

    def postprocess(given):
        batch, predictions = given
        candidates = model.inference.candidates(predictions, torch.tensor(batch.image_sizes))
        found = model.inference.select(candidates, nms)
        return to_instances(found, batch.image_sizes, batch.image_sizes)

    return model.preprocess_image, network, postprocess


def onnx_stages(model: AssignmentDetector, name: str, size: tuple[int, int], folder: Path) -> Stages:
    """The stages in ONNX Runtime."""
    path = folder / f"{name.replace('/', '_')}.onnx"
    config, nms = load_config(name), nms_of(model.inference)
    metadata = metadata_of(config, name, model.backbone.size_divisibility, nms)
    write_onnx(ExportGraph(model), metadata, path, Options(image_size=size))
    return exported_stages(Detector(path, threads=torch.get_num_threads()))


def exported_stages(detector: Detector) -> Stages:
    """The stages of an exported file. The network is the whole graph, with top-k and NMS."""

    def preprocess(inputs: list[dict]):
        images = [x["image"].numpy().transpose(1, 2, 0) for x in inputs]
        return detector.batch(images), [image.shape[:2] for image in images]

    def network(given):
        return given, detector.run(*given)

    def postprocess(given):
        (batch, sizes), arrays = given
        return detector.outputs(arrays, batch, sizes, sizes)

    return preprocess, network, postprocess


def cases(
    models: Mapping[str, AssignmentDetector],
    runtimes: Sequence[str],
    batch_sizes: Sequence[int],
    size: tuple[int, int],
    folder: Path,
) -> dict[Case, Stages]:
    """Every model in every runtime with the NMS of its recipe; in the eager runtime also with the other choice.

    Args:
        folder: folder for ONNX files.
    """
    stages: dict[tuple[str, float | None, str], Stages] = {}
    for name, model in models.items():
        own = model.inference.nms_threshold
        if "eager" in runtimes:
            for nms in (own, OTHER_NMS if own is None else None):
                stages[name, nms, "eager"] = torch_stages(model, nms)
        if "compile" in runtimes:
            stages[name, own, "compile"] = torch_stages(model, own, compiled=True)
        if "onnx" in runtimes:
            stages[name, own, "onnx"] = onnx_stages(model, name, size, folder)
    return {Case(*key, batch_size): parts for batch_size in batch_sizes for key, parts in stages.items()}


@torch.no_grad()
def measure(stages: Mapping[Case, Stages], inputs: Sequence[dict], repeats: int, warmup: int = 2) -> dict[Case, dict]:
    """Figures of each case: median milliseconds per image of each part and the "total", the "totals" of all rounds,
    "detections" per image, and the "ratio" of the total to that of the first case with this runtime and batch size.
    """
    times = defaultdict(lambda: StepTimes(torch.device("cpu")))
    found = {}
    for _ in range(warmup + repeats):
        for case, parts in stages.items():
            value = list(inputs[: case.batch_size])
            for part, run in zip(PARTS, parts, strict=True):
                value = times[case].time(part, run, value)
            found[case] = sum(map(len, value)) / case.batch_size
    result: dict[Case, dict] = {}
    for case in stages:
        parts = {part: [x / case.batch_size for x in times[case].milliseconds[part][warmup:]] for part in PARTS}
        totals = [sum(row) for row in zip(*parts.values(), strict=True)]
        medians = {part: statistics.median(values) for part, values in parts.items()}
        result[case] = {**medians, "total": statistics.median(totals), "totals": totals, "detections": found[case]}
    for case, row in result.items():
        row["ratio"] = paired_ratio(row, result[_reference(case, result)])
    return result


def paired_ratio(row: Mapping, reference: Mapping) -> float:
    """Median, over the rounds, of this case's total divided by the reference's total in the same round."""
    return statistics.median(a / b for a, b in zip(row["totals"], reference["totals"], strict=True))


def _reference(case: Case, others: Iterable[Case]) -> Case:
    """The first case with the same runtime and batch size: the first model with the NMS of its recipe."""
    return next(c for c in others if (c.runtime, c.batch_size) == (case.runtime, case.batch_size))


def run(args: argparse.Namespace) -> None:
    """Time all models in turn, as `la-det bench inference` says, and print a table."""
    torch.set_num_threads(args.threads or torch.get_num_threads())
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, CPU", file=sys.stderr)
    size, weights = tuple(args.image_size), weights_by_config(args.weights, args.configs)
    inputs = images(SHAPES[args.images], max(args.batch_sizes), size)
    models = {name: load(name, weights.get(name), inputs, args.candidates) for name in args.configs}
    with tempfile.TemporaryDirectory() as folder:
        stages = cases(models, args.runtimes, args.batch_sizes, size, Path(folder))
        print(f"{len(stages)} cases in turn, {args.repeats} times", file=sys.stderr)
        figures = measure(stages, inputs, args.repeats)
    if args.json:
        args.json.write_text(json.dumps([asdict(case) | row for case, row in figures.items()], indent=1) + "\n")
    header = ["model", "NMS", "runtime", "batch", *(f"{column} ms" for column in COLUMNS), "ratio", "detections"]
    rows = [
        [case.model, case.nms or "none", case.runtime, case.batch_size]
        + [f"{row[column]:.2f}" for column in COLUMNS]
        + [f"{row['ratio']:.2f}", f"{row['detections']:.0f}"]
        for case, row in figures.items()
    ]
    print(tabulate(rows, header, tablefmt="github", disable_numparse=True))


def weights_by_config(pairs: Sequence[str], configs: Sequence[str]) -> dict[str, str]:
    """Config -> file, from `--weights CONFIG=FILE ...`."""
    weights = {}
    for pair in pairs:
        name, separator, weights[name] = pair.partition("=")
        if not separator or name not in configs:
            raise UserError(f"--weights {pair}: it has the form CONFIG=FILE, with one of {', '.join(configs)}")
    return weights
