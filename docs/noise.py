#!/usr/bin/env python3
"""Measure what makes another seed change the AP of a short training less: the question before docs/comparison.md.

Two schemes are trained with three seeds, once with the schedule of the recipe and once with a longer warm-down. Each
trained detector is evaluated in several ways: its weights or their moving average, on 300 or 2,000 images, after the
last iteration or as the mean over the last five checkpoints. The ways of evaluation see the same trainings.

`train` does the trainings that have no record yet, one after the other; `report` writes docs/noise.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from omegaconf import DictConfig
from tabulate import tabulate

import la_det
from la_det.checkpoint.checkpointer import write_json
from la_det.comparison.results import read_evaluations
from la_det.comparison.schemes import config_name

RECORDS = Path(__file__).parent / "noise"
SCHEMES, SEEDS, SCHEDULES = ("fcos", "poto"), (0, 1, 2), ("recipe", "longer warm-down")
ITERATIONS, PERIOD, LAST = 1200, 40, 5  # checkpoints every PERIOD iterations, the LAST of which are evaluated
EMA_DECAY = 0.99
SMALL, LARGE = "shapes_tiny_val", "shapes_tiny_2k_val"
WARM_DOWN = {"values": (1.0, 0.02, 0.0), "lengths": [0.1, 0.6, 0.3]}

INTRODUCTION = """# Noise of short trainings

How much does AP change with the seed alone, and what narrows this spread? {schemes} were trained {iterations:,}
iterations on `shapes_tiny`, with seeds {seeds}. "Spread" is the sample standard deviation over the seeds, pooled over
the two schemes, in AP, and relative to the mean AP of the two. Rows of one schedule are evaluations of the same
trainings. So rows can be compared with each other, but six trainings know a spread only to about 35 %.

- **weights**: those of the last iteration, or their moving average with decay {decay}.
- **images**: the 300 of `shapes_tiny_val`, or the 2,000 of `shapes_tiny_2k_val`.
- **evaluations**: the last one, or the mean over checkpoints {period} iterations apart.
- **longer warm-down**: the learning rate falls to 2 % within 70 % of the training instead of to 0 within all of it.
"""


def main() -> None:
    """Train or report, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    training = commands.add_parser("train", help="do the trainings without a record")
    training.add_argument("--output", type=Path, default=Path("output/noise"), help="their folders (%(default)s)")
    training.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="only these")
    commands.add_parser("report", help="write docs/noise.md")
    args = parser.parse_args()
    if args.command == "report":
        RECORDS.with_suffix(".md").write_text(report())
        return
    for seed, schedule, scheme in product(args.seeds, SCHEDULES, SCHEMES):
        name = f"{scheme}_{schedule.replace(' ', '_')}_seed{seed}"
        record = RECORDS / f"{name}.json"
        if not record.exists():
            aps = run(scheme, seed, schedule, args.output / name)
            evaluations = read_evaluations(args.output / name / "metrics.json", ITERATIONS)
            settings = {"scheme": scheme, "seed": seed, "schedule": schedule}
            write_json(record, {**settings, "ap": aps, "evaluations": evaluations})


def run(scheme: str, seed: int, schedule: str, output: Path) -> dict[str, dict[str, list[float]]]:
    """Train, and return the APs of each data set by kind of weights, "plain" or "average", in order of iterations."""
    cfg = la_det.model_zoo.get_config(config_name(scheme, "shapes_tiny"))
    cfg.train.update(max_iter=ITERATIONS, seed=seed, eval_period=ITERATIONS // 3)
    cfg.train.checkpointer.update(period=PERIOD, max_to_keep=LAST)
    cfg.train.ema.update(enabled=True, decay=EMA_DECAY)
    cfg.dataloader.train.num_workers = cfg.dataloader.test.num_workers = 0
    cfg.dataloader.test.dataset.names = LARGE
    if schedule == "longer warm-down":
        lengthen_warm_down(cfg.lr_multiplier)
    last = la_det.train(cfg, output=output, resume=True)
    cfg.dataloader.test.dataset.names = SMALL
    checkpoints = [output / "model_final.pth", *sorted(output.glob("model_0*.pth"), reverse=True)][:LAST]
    small = [la_det.evaluate(cfg, path, output=output) for path in checkpoints[::-1]]
    return {
        weights: {"300": [r[task]["AP"] for r in small], "2,000": [last[task]["AP"]]}
        for weights, task in (("plain", "bbox"), ("average", "bbox_ema"))
    }


def lengthen_warm_down(lr_multiplier: DictConfig) -> None:
    """Cosine to a small rate, and a last part of the training with this rate, again by a cosine to zero."""
    warm_up, down = lr_multiplier.schedulers
    high, low, end = WARM_DOWN["values"]
    lr_multiplier.schedulers = [
        warm_up,
        {**down, "start_value": high, "end_value": low},
        {**down, "start_value": low, "end_value": end},
    ]
    lr_multiplier.lengths = WARM_DOWN["lengths"]
    lr_multiplier.interval_scaling = ["rescaled"] * 3


def report() -> str:
    """The page."""
    head = INTRODUCTION.format(
        schemes=" and ".join(SCHEMES),
        iterations=ITERATIONS,
        seeds=", ".join(map(str, SEEDS)),
        decay=EMA_DECAY,
        period=PERIOD,
    )
    columns = ["schedule", "weights", "images", "evaluations", *(f"AP {s}" for s in SCHEMES), "spread", "relative %"]
    table = tabulate(list(rows()), columns, "pipe", floatfmt=".2f")
    return f"{head}\n{table}\n"


def rows() -> Iterator[tuple]:
    """A row for each schedule and way to evaluate."""
    records = [json.loads(path.read_text()) for path in sorted(RECORDS.glob("*.json"))]
    ways = [(w, i, n) for w in ("plain", "average") for i, n in (("300", 1), ("300", LAST), ("2,000", 1))]
    for schedule, (weights, images, number) in product(SCHEDULES, ways):
        aps = {
            scheme: [
                statistics.fmean(r["ap"][weights][images][-number:])
                for r in records
                if (r["scheme"], r["schedule"]) == (scheme, schedule)
            ]
            for scheme in SCHEMES
        }
        means = [statistics.fmean(values) for values in aps.values()]
        spread = statistics.fmean(statistics.variance(values) for values in aps.values()) ** 0.5
        yield schedule, weights, images, number, *means, spread, 100 * spread / statistics.fmean(means)


if __name__ == "__main__":
    main()
