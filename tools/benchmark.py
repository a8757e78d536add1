#!/usr/bin/env python
"""Measure speed and memory.

matching: cost of assignment and losses on a scene at real size (two images of 800 x 1333, given prediction maps),
beside the dense forms, with this project's targets for the ratios. Every case has a fresh process. "ops" is the number
of operations that a GPU gets in assignment and losses, forward and backward. "waits" is how often the CPU waits for one
of their results.

official: the same beside the official code, in one process in turn. It takes your checkouts of DeFCN and DW. Neither
cvpods nor MMDetection is needed.

paired: the same beside another checkout of this project, each in a process of its own, call by call in turn.

scaling: growth of the assignment's cost with the number of ground truths and with the size of the image.

train: milliseconds of each part of a training step on Shapes images, beside Detectron2's own RetinaNet with the same
backbone and images in the same run.

inference: milliseconds per image of each part of inference, for several models in turn: eager with and without NMS,
compiled, and in ONNX Runtime. "ratio" is the total divided by that of the first model in the same runtime and round. In
ONNX Runtime, the network's part is the whole graph, with top-k and NMS.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from detectron2.config import instantiate
from tabulate import tabulate

from la_det.benchmark import official, paired, scaling
from la_det.benchmark.inference import COLUMNS, cases, images, load, measure
from la_det.benchmark.matching import HEADER, SCHEMES, measure_in_fresh_process, table_row, without_empty_columns
from la_det.benchmark.train import PARTS, detectron2_model, giga_flops, harmless_optimizer, load_config, step_times
from la_det.data.shapes import SHAPES
from la_det.errors import UserError, one_line_errors

RUNTIMES = ("eager", "compile", "onnx")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    matching = commands.add_parser("matching", help="cost of assignment and losses")
    matching.add_argument("--schemes", nargs="+", choices=sorted(SCHEMES), default=list(SCHEMES), metavar="SCHEME")
    matching.add_argument("--gts", nargs="+", type=int, default=[7, 20, 100, 300, 500], help="ground truths per image")
    matching.add_argument("--device", default="cpu")
    matching.add_argument("--repeats", type=int, default=9, help="calls whose median counts")
    matching.add_argument("--threads", type=int, default=1, help="CPU threads")
    matching.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    matching.set_defaults(run=run_matching)

    for name, module, help_text in (
        ("official", official, "assignment and losses beside the official code"),
        ("paired", paired, "assignment and losses beside another checkout"),
        ("scaling", scaling, "growth of the assignment's cost"),
    ):
        command = commands.add_parser(name, help=help_text)
        module.add_arguments(command)
        command.set_defaults(run=module.run)

    train = commands.add_parser("train", help="parts of a training step")
    train.add_argument("configs", nargs="+", metavar="CONFIG", help="names as in la_det.model_zoo")
    train.add_argument("--short-edge", type=int, default=256, help="short side of the images, pixels")
    train.add_argument("--batch-size", type=int, default=2)
    train.add_argument("--steps", type=int, default=10, help="steps whose median counts")
    train.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    train.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    train.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    train.set_defaults(run=run_train)

    inference = commands.add_parser("inference", help="parts of inference, with and without NMS")
    inference.add_argument("configs", nargs="+", metavar="CONFIG", help="names as in la_det.model_zoo")
    inference.add_argument("--weights", nargs="+", default=[], metavar="CONFIG=FILE", help="trained; random by default")
    inference.add_argument("--candidates", type=int, default=1000, help="per image, for models with random weights")
    inference.add_argument("--images", choices=sorted(SHAPES), default="shapes", help="data set of the images")
    inference.add_argument("--image-size", type=int, nargs=2, default=(256, 256), metavar=("H", "W"))
    inference.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    inference.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=RUNTIMES)
    inference.add_argument("--repeats", type=int, default=15, help="rounds whose median counts")
    inference.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    inference.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    inference.set_defaults(run=run_inference)
    args = parser.parse_args()
    args.run(args)


def run_matching(args: argparse.Namespace) -> None:
    print(f"torch {torch.__version__}, {args.threads} threads, device {args.device}", file=sys.stderr)
    rows, measurements = [], []
    for scheme in args.schemes:
        for num_gts in args.gts:
            print(f"{scheme}, G = {num_gts}", file=sys.stderr)
            measurement = measure_in_fresh_process(scheme, num_gts, args.device, args.repeats, args.threads)
            measurements.append(asdict(measurement))
            rows.append(table_row(measurement))
            if args.json:
                args.json.write_text(json.dumps(measurements, indent=1) + "\n")
    print(tabulate(*without_empty_columns(rows, HEADER), tablefmt="github", disable_numparse=True))


def run_train(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.threads} threads, device {args.device}", file=sys.stderr)
    figures = {}
    for name in args.configs:
        config = load_config(name, args.short_edge, args.batch_size)
        for label, node in (
            (name, config.model),
            ("Detectron2 RetinaNet", detectron2_model("retinanet", config.model)),
        ):
            print(label, file=sys.stderr)
            model = instantiate(node)
            batches = iter(instantiate(config.dataloader.train))
            optimizer = harmless_optimizer(config, model)
            times = step_times(model, optimizer, batches, torch.device(args.device), args.steps)
            flops = giga_flops(instantiate(node), args.short_edge, args.short_edge)
            key = label if label == name else f"{label}, backbone of {name}"
            figures[key] = {**times, "backbone GFLOPs": flops[0], "head GFLOPs": flops[1]}
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    columns = ["step", *PARTS, "backbone GFLOPs", "head GFLOPs"]
    rows = [[name, *(f"{row[column]:.1f}" for column in columns)] for name, row in figures.items()]
    header = ["model"] + [f"{c} ms" if "GFLOPs" not in c else c for c in columns]
    print(tabulate(rows, header, tablefmt="github", disable_numparse=True))


def run_inference(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.threads} threads, CPU", file=sys.stderr)
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


if __name__ == "__main__":
    with one_line_errors():
        main()
