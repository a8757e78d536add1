"""Images per second of an evaluation whose batches are padded, and of one whose batches are of one padded size."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from tabulate import tabulate

from la_det.benchmark.inference import load
from la_det.data.shapes import SHAPES, draw_scene
from la_det.deploy.images import padded_size
from la_det.errors import UserError
from la_det.evaluation.batches import OneSizeBatches
from la_det.modeling.images import divisor_of

Batches = Sequence[list[dict]]


def images(count: int, sides: tuple[int, int]) -> list[dict]:
    """Shapes images with random sides between two numbers of pixels, as a data mapper returns them."""
    sizes = np.random.default_rng(0).integers(sides[0], sides[1] + 1, (count, 2)).tolist()
    drawn = (draw_scene(SHAPES["shapes"], "val", i)[0] for i in range(count))
    resized = (cv2.resize(image, tuple(size))[:, :, ::-1] for image, size in zip(drawn, sizes, strict=True))
    return [{"image": torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))} for x in resized]


def ways(inputs: Sequence[dict], batch_size: int, divisor: int) -> dict[str, Batches]:
    """The batches of both evaluations: in the data set's order, and by size, each image with its like only."""
    by_size = sorted(inputs, key=lambda x: x["image"].shape)
    together, like = ([x[i : i + batch_size] for i in range(0, len(x), batch_size)] for x in (inputs, by_size))
    return {"padded together": together, "of one size": list(OneSizeBatches(like, divisor))}


def padding(batches: Batches, divisor: int) -> float:
    """Share of the network's pixels that belong to no image."""
    sizes = [[tuple(x["image"].shape[-2:]) for x in batch] for batch in batches]
    pixels = sum(h * w for batch in sizes for h, w in batch)
    return 1 - pixels / sum(len(batch) * np.prod(padded_size(batch, divisor)) for batch in sizes)


@torch.no_grad()
def run(args: argparse.Namespace) -> None:
    """Time both in turn, as `la-det bench evaluation` says, and print a table."""
    torch.set_num_threads(args.threads or torch.get_num_threads())
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, CPU", file=sys.stderr)
    if args.sides[0] > args.sides[1]:
        raise UserError(f"--sides {args.sides[0]} {args.sides[1]}: give the smaller number first")
    inputs = images(args.images, args.sides)
    model = load(args.config, None, inputs[:1], candidates=100)
    divisor = divisor_of(model)
    found = ways(inputs, args.batch_size, divisor)
    seconds: dict[str, list[float]] = {way: [] for way in found}
    for _ in range(args.repeats):
        for way, batches in found.items():
            start = time.perf_counter()
            for batch in batches:
                model(batch)
            seconds[way].append(time.perf_counter() - start)
    speeds = {way: len(inputs) / statistics.median(of) for way, of in seconds.items()}
    rows = [
        [way, len(batches), f"{100 * padding(batches, divisor):.0f} %", f"{speeds[way]:.1f}"]
        for way, batches in found.items()
    ]
    print(tabulate(rows, ["batches", "number", "padding", "images / s"], tablefmt="pipe", disable_numparse=True))
