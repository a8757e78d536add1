#!/usr/bin/env python3
"""Train pairs of a one-to-one and a one-to-many branch on DATE's head, which nobody has published: is one better?

`train` does the trainings that have no record yet, one after the other; `report` writes docs/dual_grid.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
from itertools import product
from pathlib import Path

from omegaconf import DictConfig
from tabulate import tabulate

import la_det
from la_det import model_zoo
from la_det.checkpoint.checkpointer import write_json

RECORDS = Path(__file__).parent / "dual_grid"
ITERATIONS = 900
# Those of docs/comparison.md on `shapes_tiny`.
OVERRIDES = [
    "train.amp.enabled=True",
    "train.amp.dtype=bfloat16",
    "dataloader.train.num_workers=0",
    "dataloader.test.num_workers=0",
    "dataloader.test.dataset.names=shapes_tiny_2k_val",
]
# Title -> config that has the branch, and its place there.
ONE_TO_ONE = {
    "POTO": ("DATE/date_f", "one_to_one"),
    "o2f": ("O2F/o2f", "main"),
    "TAL 1": ("DATE/tal_dual", "one_to_one"),
}
ONE_TO_MANY = {
    "FCOS": ("DATE/date_f", "one_to_many"),
    "DW": ("DATE/date_dw", "one_to_many"),
    "TAL 10": ("DATE/tal_dual", "one_to_many"),
}

INTRODUCTION = """# A grid of dual pairs

DATE trains a one-to-one branch beside a one-to-many branch, on shared towers, and detects with the first. Each row of
the table is a one-to-one scheme, each column a one-to-many scheme. AP without NMS after {iterations} iterations on
`shapes_tiny`, of 2,000 images. POTO beside FCOS is DATE-F; the other pairs are ours. With several seeds: mean ± sample
standard deviation.
"""


def main() -> None:
    """Train or report, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    training = commands.add_parser("train", help="do the trainings without a record")
    training.add_argument("--output", type=Path, default=Path("output/dual_grid"), help="their folders (%(default)s)")
    training.add_argument("--one-to-one", nargs="+", choices=ONE_TO_ONE, default=list(ONE_TO_ONE))
    training.add_argument("--one-to-many", nargs="+", choices=ONE_TO_MANY, default=list(ONE_TO_MANY))
    training.add_argument("--seeds", type=int, nargs="+", default=[0])
    commands.add_parser("report", help="write docs/dual_grid.md")
    args = parser.parse_args()
    if args.command == "report":
        RECORDS.with_suffix(".md").write_text(report())
        return
    for seed, one, many in product(args.seeds, args.one_to_one, args.one_to_many):
        name = f"{one}_{many}_seed{seed}".replace(" ", "")
        record = RECORDS / f"{name}.json"
        if not record.exists():
            cfg = pair(one, many)
            cfg.train.update(max_iter=ITERATIONS, seed=seed)
            results = la_det.train(cfg, overrides=OVERRIDES, output=args.output / name, resume=True)
            gap = results["nms_gap"]
            aps = {"ap": gap["AP_without_nms"], "ap_with_nms": gap["AP_with_nms"], "duplicates": gap["duplicates"]}
            write_json(record, {"one_to_one": one, "one_to_many": many, "seed": seed, **aps})


def pair(one_to_one: str, one_to_many: str) -> DictConfig:
    """The twin of DATE-F on `shapes_tiny` with other branches."""
    cfg = twin("DATE/date_f")
    (config, place), (many_config, many_place) = ONE_TO_ONE[one_to_one], ONE_TO_MANY[one_to_many]
    one, many = twin(config).model, twin(many_config).model
    model = cfg.model
    model.head.predictors.one_to_one = one.head.predictors[place]
    model.head.predictors.one_to_many = many.head.predictors[many_place]
    model.criteria = [one.criteria[0], many.criteria[1]]
    model.criteria[0].branch = "one_to_one"
    model.inference = one.inference
    return cfg


def twin(name: str) -> DictConfig:
    """A twin on `shapes_tiny`."""
    return model_zoo.get_config(f"{name}_r18_fpn_shapes_tiny")


def report() -> str:
    """The page."""
    records = [json.loads(path.read_text()) for path in sorted(RECORDS.glob("*.json"))]
    lines = []
    for one in ONE_TO_ONE:
        cells = []
        for many in ONE_TO_MANY:
            aps = [r["ap"] for r in records if (r["one_to_one"], r["one_to_many"]) == (one, many)]
            spread = f" ± {statistics.stdev(aps):.1f} ({len(aps)} seeds)" if len(aps) > 1 else ""
            cells.append(f"{statistics.fmean(aps):.1f}{spread}" if aps else "")
        lines.append([one, *cells])
    table = tabulate(lines, ["one-to-one", *ONE_TO_MANY], "pipe")
    return f"{INTRODUCTION.format(iterations=ITERATIONS)}\n{table}\n"


if __name__ == "__main__":
    main()
