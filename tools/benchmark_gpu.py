#!/usr/bin/env python3
"""Measure all that needs a GPU in one run of at most six minutes, for the case that a GPU is there for a short time.

1. Assignment and losses of every scheme on the scene of `tools/benchmark.py matching`: milliseconds, operations and
   waits.
2. A training step at full size under AMP in channels_last, with few and with many images. It is measured for each
   config, eager and with backbone and head compiled, and for Detectron2's RetinaNet and FCOS on the same backbone,
   whose "network" contains assignment and losses. "share" is the share of assignment and losses in the sum of the
   step's parts, which are timed in steps of their own.

Every row is printed, and written to --json, as soon as it is measured. After --seconds no measurement is begun, and the
number of missing rows is printed.
"""

import _start as _start

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances

from la_det import model_zoo
from la_det.benchmark.matching import HEADER, SCHEMES, measure, table_row
from la_det.benchmark.memory import peak_extra_mib
from la_det.benchmark.scene import make_scene
from la_det.benchmark.train import PARTS, detectron2_model, harmless_optimizer, step_times
from la_det.errors import UserError, one_line_errors

CONFIGS = ("POTO/poto_r50_fpn_3x_ms_coco", "FCOS/fcos_r50_fpn_3x_ms_coco")
DETECTRON2 = {"Detectron2 RetinaNet": "retinanet", "Detectron2 FCOS": "fcos"}
SHOWN = [i for i, name in enumerate(HEADER) if name != "dense / ours"]  # a GPU has no dense form
STEP_HEADER = ["model", "images", "step ms", *(f"{part} ms" for part in PARTS[1:]), "share", "peak MiB"]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=330, help="no later measurement begins (default: %(default)s)")
    parser.add_argument("--device", default="cuda", help="default: %(default)s; cpu is only for trying the command")
    parser.add_argument("--schemes", nargs="*", choices=sorted(SCHEMES), default=list(SCHEMES), metavar="SCHEME")
    parser.add_argument("--gts", nargs="+", type=int, default=[20, 300], help="ground truths per image of the scene")
    parser.add_argument("--configs", nargs="*", default=CONFIGS, metavar="CONFIG", help="for steps")
    parser.add_argument("--image-size", type=int, nargs=2, default=(800, 1333), metavar=("H", "W"), help="for steps")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[2, 16], help="for steps")
    parser.add_argument("--repeats", type=int, default=9, help="calls and steps whose median counts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here, after every row")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.device != "cpu" and not torch.cuda.is_available():
        raise UserError(f"--device {args.device}: there is no GPU; --device cpu tries the command")
    end = time.monotonic() + args.seconds
    name = torch.cuda.get_device_name(args.device) if args.device != "cpu" else "CPU"
    print(f"{name}, torch {torch.__version__}\n")
    figures: list[dict] = []
    tables = (([HEADER[i] for i in SHOWN], scheme_cases(args)), (STEP_HEADER, step_cases(args)))
    for header, cases in tables:
        print(_line(header), _line(["---"] * len(header)), sep="\n", flush=True)
        left_out = 0
        for run in cases:
            if time.monotonic() > end:
                left_out += 1
                continue
            row, record = run()
            print(_line(row), flush=True)
            figures.append(record)
            if args.json:
                args.json.write_text(json.dumps(figures, indent=1) + "\n")
        print(f"\nrows left out, there was no time: {left_out}\n" if left_out else "")


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


Case = Callable[[], tuple[list[str], dict]]


def scheme_cases(args: argparse.Namespace) -> Iterator[Case]:
    """Measurements, each of which gives a row of the first table and a record."""

    def run(scheme: str, num_gts: int) -> tuple[list[str], dict]:
        measurement = measure(scheme, num_gts, args.device, args.repeats)
        row = table_row(measurement)
        return [row[i] for i in SHOWN], asdict(measurement)

    for num_gts, scheme in itertools.product(args.gts, args.schemes):
        yield lambda num_gts=num_gts, scheme=scheme: run(scheme, num_gts)


def step_cases(args: argparse.Namespace) -> Iterator[Case]:
    """Measurements, each of which gives a row of the second table and a record. Compiled models come last."""

    def run(label: str, name: str, images: int) -> tuple[list[str], dict]:
        model = label if label in DETECTRON2 else f"{name}, {label}"
        record = {"model": model, "images": images, **measure_step(label, name, images, args)}
        cells = [f"{record[part]:.1f}" if record[part] else "" for part in ("step", *PARTS[1:])]
        share = f"{record['share']:.1%}" if record["share"] else ""
        return [model, str(images), *cells, share, f"{record['peak MiB']:.0f}"], record

    eager = itertools.product(args.configs, ("eager",), args.batch_sizes)
    theirs = itertools.product(args.configs[:1], DETECTRON2, args.batch_sizes)
    compiled = itertools.product(args.configs, ("compiled",), args.batch_sizes)
    for name, label, images in itertools.chain(eager, theirs, compiled):
        yield lambda name=name, label=label, images=images: run(label, name, images)


def measure_step(label: str, name: str, images: int, args: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of the step and its parts, the parts' share of assignment and losses, and peak MiB of a step."""
    config, device = model_zoo.get_config(name), torch.device(args.device)
    node = detectron2_model(DETECTRON2[label], config.model) if label in DETECTRON2 else config.model
    torch.manual_seed(0)
    model = instantiate(node).to(device, memory_format=torch.channels_last).train()
    if label == "compiled":
        torch.compiler.reset()
        model.predict = torch.compile(model.predict, dynamic=False)
    optimizer = harmless_optimizer(config, model)
    batches = itertools.repeat(make_batch(images, config.model.num_classes, tuple(args.image_size), device))
    dtype = torch.float16 if device.type == "cuda" else torch.bfloat16
    times: dict[str, float] = {}

    def steps() -> None:
        times.update(step_times(model, optimizer, batches, device, args.repeats, warmup=3, amp_dtype=dtype))

    peak = peak_extra_mib(steps, args.device)
    parts = sum(times[part] for part in PARTS)
    return {**times, "share": (times["matching"] + times["losses"]) / parts, "peak MiB": peak}


def make_batch(images: int, num_classes: int, size: tuple[int, int], device: torch.device) -> list[dict]:
    """Images of noise with the ground truths of a scene, 7 per image, about as many as in COCO."""
    scene = make_scene(7, num_classes, images, size=size)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (3, *size), dtype=torch.uint8, generator=generator)
    image = noise.pin_memory() if device.type == "cuda" else noise
    return [
        {"image": image, "instances": Instances(size, gt_boxes=Boxes(boxes), gt_classes=classes)}
        for boxes, classes in zip(scene.boxes, scene.classes, strict=True)
    ]


if __name__ == "__main__":
    with one_line_errors():
        main()
