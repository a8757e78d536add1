#!/usr/bin/env python3
"""Measure what makes another seed change the AP of a short training less: the question before docs/comparison.md.

Two schemes are trained with three seeds, once with the schedule of the recipe and once with a longer warm-down. Each
trained detector is evaluated in several ways: its weights or their moving average, on 300 or 2,000 images, after the
last iteration or as the mean over the last three checkpoints. The ways of evaluation see the same trainings.

`train` does the trainings that have no record yet, one after the other; `report` writes docs/noise.md. The trainings
with the schedule of the recipe are runs of the comparison, and become records there.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from pathlib import Path

import torch
from omegaconf import DictConfig
from tabulate import tabulate

import la_det
from la_det import model_zoo
from la_det.checkpoint.checkpointer import write_json
from la_det.comparison.results import (
    Evaluation,
    Run,
    RunRecord,
    device_name,
    read_evaluations,
    run_file,
    versions,
    write_record,
)
from la_det.comparison.run import PARTS
from la_det.comparison.schemes import config_name

COMPARISON = Path(__file__).parent / "comparison"
RECORDS = Path(__file__).parent / "noise"
SCHEMES, SEEDS, SCHEDULES = ("fcos", "poto"), (0, 1, 2), ("recipe", "longer warm-down")
ITERATIONS, PERIOD, LAST = 1200, 40, 3  # checkpoints every PERIOD iterations, the LAST of which are evaluated
EMA_DECAY = 0.99
# Those of the comparison.
OVERRIDES = [
    "train.amp.enabled=True",
    "train.amp.dtype=bfloat16",
    "dataloader.train.num_workers=0",
    "dataloader.test.num_workers=0",
    "dataloader.test.dataset.names=shapes_tiny_2k_val",
]
WARM_DOWN = {"values": (1.0, 0.02, 0.0), "lengths": [0.1, 0.6, 0.3]}

INTRODUCTION = """# Noise of short trainings

Made by `python docs/noise.py train` and `python docs/noise.py report` from the records in [noise](noise).

How much does AP change with the seed alone, and what narrows this spread? {schemes} were trained {iterations:,}
iterations on `shapes_tiny`, with seeds {seeds}. Rows of one schedule are evaluations of the same trainings, so they
can be compared with each other. But a spread is known only to about 35 % from six trainings, and to about 50 % from
three ratios.

- **spread**: sample standard deviation over the seeds, pooled over the two schemes, in AP and in % of their mean AP.
- **spread of the ratio**: that of the AP of one scheme over the AP of the other one with the same seed, in % of it. A
  seed decides the first weights and the batches of both.
- **with other seeds**: what the spread of the ratio would be if both had seeds of their own: √2 times the spread, %.

- **weights**: those of the last iteration, or their moving average with decay {decay}.
- **images**: the 300 of `shapes_tiny_val`, or the 2,000 of `shapes_tiny_2k_val`.
- **evaluations**: the last one, or the mean over checkpoints {period} iterations apart.
- **longer warm-down**: the learning rate falls to 2 % within 70 % of the training instead of to 0 within all of it.
"""

DECISION = """
## What follows for the comparison

[comparison.md](comparison.md) and [dual_grid.md](dual_grid.md) use the schedule of the recipe, the weights of the last
iteration and 2,000 images. They compare trainings with equal seeds.

- **Equal seeds** cost nothing. With the schedule of the recipe, they narrow the spread of the ratio to about half of
  what it would be with other seeds; with the longer warm-down, they do not. These are two schemes with three seeds.
  Among the schemes of the [comparison](comparison.md#shapes_tiny), which says its noise with and without equal seeds,
  they narrow less.
- **The longer warm-down** narrows the spread of AP, but not that of the ratio, which the comparison is about. And it
  costs AP: the rate is small for most of the training. At this length, that is a shorter training.
- **Averaged weights and averaged evaluations** change little: the rate of the recipe ends at zero, so the last weights
  hardly move. They are not used.
- **2,000 images** do not narrow what seeds do to a training. But the choice of images is an error of its own, which no
  seed shows, because all trainings share the images: on the 300 images, FCOS leads POTO by more than on the 2,000. An
  evaluation of the 2,000 takes about 15 seconds.
- **Autocast to bfloat16** in training, as in all trainings of this page, shortens a step on CPUs that have its
  instructions. More seeds fit into the same time.
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
            write_json(record, {"scheme": scheme, "seed": seed, "schedule": schedule, "ap": aps})


def run(scheme: str, seed: int, schedule: str, output: Path) -> dict[str, dict[str, list[float]]]:
    """Train, and return the APs of each data set by kind of weights, "plain" or "average", in order of iterations."""
    cfg = model_zoo.get_config(config_name(scheme, "shapes_tiny"))
    cfg.train.update(max_iter=ITERATIONS, seed=seed)
    cfg.train.checkpointer.update(period=PERIOD, max_to_keep=LAST)
    cfg.train.ema.update(enabled=True, decay=EMA_DECAY)
    if schedule == "longer warm-down":
        lengthen_warm_down(cfg.lr_multiplier)
    else:
        cfg.train.eval_period = ITERATIONS // PARTS
    last = la_det.train(cfg, overrides=OVERRIDES, output=output, resume=True)
    if schedule == "recipe":
        write_comparison_record(scheme, seed, read_evaluations(output / "metrics.json", ITERATIONS))
    checkpoints = [output / "model_final.pth", *sorted(output.glob("model_0*.pth"), reverse=True)][:LAST]
    small = [la_det.evaluate(cfg, path, overrides=OVERRIDES[:-1], output=output) for path in checkpoints[::-1]]
    return {
        weights: {"300": [r[task]["AP"] for r in small], "2,000": [last[task]["AP"]]}
        for weights, task in (("plain", "bbox"), ("average", "bbox_ema"))
    }


def write_comparison_record(scheme: str, seed: int, evaluations: list[Evaluation]) -> None:
    """Write the record that `la-det compare run` would write: that of the plain weights."""
    run = Run(config_name(scheme, "shapes_tiny"), seed, {"max_iter": ITERATIONS}, ITERATIONS, OVERRIDES)
    plain = [{name: value for name, value in e.items() if "_ema/" not in name} for e in evaluations]
    machine = {"device": device_name("cpu"), "threads": torch.get_num_threads()}
    write_record(run_file(COMPARISON, run), RunRecord(**asdict(run), versions=versions(), **machine, evaluations=plain))


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
    spreads = ["spread", "spread, %", "spread of the ratio, %", "with other seeds, %"]
    columns = ["schedule", "weights", "images", "evaluations", *(f"AP {s}" for s in SCHEMES), *spreads]
    table = tabulate(list(rows()), columns, "pipe", floatfmt=".2f")
    return f"{head}\n{table}\n{DECISION}"


def rows() -> Iterator[tuple]:
    """A row for each schedule and way to evaluate."""
    records = [json.loads(path.read_text()) for path in sorted(RECORDS.glob("*.json"))]  # sorted: by seed
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
        ratios = [a / b for a, b in zip(*aps.values(), strict=True)]
        paired = 100 * statistics.stdev(ratios) / statistics.fmean(ratios)
        relative = 100 * spread / statistics.fmean(means)
        yield schedule, weights, images, number, *means, spread, relative, paired, 2**0.5 * relative


if __name__ == "__main__":
    main()
