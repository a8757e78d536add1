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

from noise import OVERRIDES
from omegaconf import DictConfig
from tabulate import tabulate

import la_det
from la_det import model_zoo
from la_det.checkpoint.checkpointer import write_json
from la_det.comparison.ratios import CONFIDENCE, Ratios
from la_det.comparison.summary import read_rows

RECORDS = Path(__file__).parent / "dual_grid"
ITERATIONS = 900
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
PAIRS = tuple(product(ONE_TO_ONE, ONE_TO_MANY))
DATE_F = "POTO + FCOS"

INTRODUCTION = """# A grid of dual pairs

Made by `python docs/dual_grid.py train` and `python docs/dual_grid.py report` from the records in
[dual_grid](dual_grid).

DATE trains a one-to-one branch beside a one-to-many branch, on shared towers, and detects with the first. Each row of
the table is a one-to-one scheme, each column a one-to-many scheme. AP without NMS after {iterations} iterations on
`shapes_tiny`, of 2,000 images. POTO beside FCOS is DATE-F, and TAL 1 beside TAL 10 the consistent dual assignment of
YOLOv10; we know of no publication of the other pairs. With several seeds: mean ± sample standard deviation. Trainings
and evaluations are done as those of the [comparison](comparison.md).
"""
ANSWER = """
Three seeds of two pairs are too few to know the noise of this grid. It is taken to be that of `shapes_tiny` in the
[comparison](comparison.md), {noise:.1f} % of AP. An interval of {confidence:.0%} confidence follows each ratio. If it
contains 1, the two cannot be told apart.

{separation}

## Is there a better pair?

On these images and at this length, yes: {number} of the other {others} pairs have a higher AP than DATE-F beyond noise.
{best} has {ratio} times its AP.

How many times the AP is, with another one-to-one scheme:

{one_to_one}

And with another one-to-many scheme:

{one_to_many}

The grid does not say which pair is best after a long training, nor on other data. A pair is made from two configs by
`pair` in [dual_grid.py](dual_grid.py), so more can be tried.
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
    aps: dict[str, dict[int, float]] = {name_of(*pair): {} for pair in PAIRS}
    for path in sorted(RECORDS.glob("*.json")):
        record = json.loads(path.read_text())
        aps[name_of(record["one_to_one"], record["one_to_many"])][record["seed"]] = record["ap"]
    lines = [[one, *(cell(aps[name_of(one, many)]) for many in ONE_TO_MANY)] for one in ONE_TO_ONE]
    table = markdown(lines, ["one-to-one", *ONE_TO_MANY])
    return f"{INTRODUCTION.format(iterations=ITERATIONS)}\n{table}\n{answer(aps)}"


def name_of(one_to_one: str, one_to_many: str) -> str:
    """A name of the pair."""
    return f"{one_to_one} + {one_to_many}"


def cell(aps: dict[int, float]) -> str:
    """The mean over seeds, with spread if there are several."""
    values = list(aps.values())
    spread = f" ± {statistics.stdev(values):.1f} ({len(values)} seeds)" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}" if values else ""


def answer(aps: dict[str, dict[int, float]]) -> str:
    """Whether a pair is better than DATE-F, and what each branch does to the AP."""
    noise = Ratios.of_rows(read_rows(RECORDS.with_name("comparison"))["shapes_tiny"]).noise
    assert noise is not None, "schemes with several seeds"
    ratios = Ratios(aps, noise)
    names = [name for name in ratios.best_first if name != DATE_F]
    to_date_f = {name: ratios.between(name, DATE_F) for name in names}
    return ANSWER.format(
        noise=100 * noise.spread,
        confidence=CONFIDENCE,
        separation=markdown(
            [[name, to_date_f.get(name) or "", ", ".join(ratios.not_told_apart(name))] for name in ratios.best_first],
            ["pair, best first", "times the AP of DATE-F", "cannot be told apart from"],
        ),
        number=sum(not ratio.is_noise and ratio.mean > 1 for ratio in to_date_f.values()),
        others=len(names),
        best=names[0],
        ratio=to_date_f[names[0]],
        one_to_one=markdown(
            [
                [f"{new} in place of POTO", *(ratios.between(name_of(new, m), name_of("POTO", m)) for m in ONE_TO_MANY)]
                for new in ONE_TO_ONE
                if new != "POTO"
            ],
            ["", *(f"beside {many}" for many in ONE_TO_MANY)],
        ),
        one_to_many=markdown(
            [
                [f"{new} in place of FCOS", *(ratios.between(name_of(o, new), name_of(o, "FCOS")) for o in ONE_TO_ONE)]
                for new in ONE_TO_MANY
                if new != "FCOS"
            ],
            ["", *(f"beside {one}" for one in ONE_TO_ONE)],
        ),
    )


def markdown(lines: list[list[object]], header: list[str]) -> str:
    """A table, with its cells as they print."""
    return tabulate(lines, header, "pipe", disable_numparse=True)


if __name__ == "__main__":
    main()
