#!/usr/bin/env python3
"""Train pairs of a one-to-one and a one-to-many branch on DATE's head: is one better than those that are published?

`train` does the trainings that have no record yet, one after the other; `report` writes docs/dual_grid.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable
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
ALONE = "nothing"
ONE_TO_MANY = {
    ALONE: None,
    "FCOS": ("DATE/date_f", "one_to_many"),
    "DW": ("DATE/date_dw", "one_to_many"),
    "TAL 10": ("DATE/tal_dual", "one_to_many"),
}
PAIRS = tuple(product(ONE_TO_ONE, ONE_TO_MANY))
DATE_F, TAL_DUAL = "POTO + FCOS", "TAL 1 + TAL 10"

INTRODUCTION = """# A grid of dual pairs

Made by `python docs/dual_grid.py train` and `python docs/dual_grid.py report` from the records in
[dual_grid](dual_grid).

DATE trains a one-to-one branch beside a one-to-many branch, on shared towers, and detects with the first. Each row of
the table is the scheme of the first branch; o2f is one-to-few. Each column is the scheme of the second branch; in the
first column there is none. The figures are AP without NMS after {iterations} iterations on `shapes_tiny`, of 2,000
images. POTO beside FCOS is DATE-F, and TAL 1 beside TAL 10 the consistent dual assignment of YOLOv10 (TAL dual in the
[comparison](comparison.md)); we know of no publication of the other pairs. With several seeds: mean ± sample standard
deviation. Trainings and evaluations are done as those of the comparison.
"""
ANSWER = """
Few pairs have three seeds, too few to know the noise of this grid. It is taken to be that of `shapes_tiny` in the
[comparison](comparison.md), {noise:.1f} % of AP. An interval of {confidence:.0%} confidence follows each ratio. If it
contains 1, the two cannot be told apart. NMS after the model would add "NMS gain" to the AP; duplicates are per image.

{separation}

## Is there a better pair?

Of the other {others} pairs, {to_date_f} have a higher AP than DATE-F beyond noise, and {to_tal} a higher one than TAL
dual. The best is {best[0]}, with {best[1]} times the AP of DATE-F and {best[2]} times that of TAL dual. Next is
{next[0]}, with {next[1]} and {next[2]}. The worst of all is {worst}. Pairs with o2f have more duplicates than others.

How many times the AP is, with a second branch instead of nothing:

{second}

How many times the AP is, with another first branch:

{first}

And with another second branch than FCOS:

{another}

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
    """The twin of DATE-F on `shapes_tiny` with other branches, or with the first one alone."""
    cfg = twin("DATE/date_f")
    config, place = ONE_TO_ONE[one_to_one]
    one, model = twin(config).model, cfg.model
    model.head.predictors.one_to_one = one.head.predictors[place]
    del model.head.predictors.one_to_many
    model.criteria = [one.criteria[0]]
    model.criteria[0].branch = "one_to_one"
    model.inference = one.inference
    if one_to_many != ALONE:
        config, place = ONE_TO_MANY[one_to_many]
        many = twin(config).model
        model.head.predictors.one_to_many = many.head.predictors[place]
        model.criteria.append(many.criteria[1])
    return cfg


def twin(name: str) -> DictConfig:
    """A twin on `shapes_tiny`."""
    return model_zoo.get_config(f"{name}_r18_fpn_shapes_tiny")


def report() -> str:
    """The page."""
    records = [json.loads(path.read_text()) for path in sorted(RECORDS.glob("*.json"))]
    found = {name_of(*pair): [r for r in records if (r["one_to_one"], r["one_to_many"]) == pair] for pair in PAIRS}
    found = {name: of_pair for name, of_pair in found.items() if of_pair}
    lines = [[one, *(cell(found.get(name_of(one, many), [])) for many in ONE_TO_MANY)] for one in ONE_TO_ONE]
    table = markdown(lines, ["first branch", *(f"beside {many}" for many in ONE_TO_MANY)])
    return f"{INTRODUCTION.format(iterations=ITERATIONS)}\n{table}\n{answer(found)}"


def name_of(one_to_one: str, one_to_many: str) -> str:
    """A name of the pair."""
    return f"{one_to_one} alone" if one_to_many == ALONE else f"{one_to_one} + {one_to_many}"


def cell(records: list[dict], metric: str = "ap", decimals: int = 1) -> str:
    """The mean over seeds, with spread if there are several."""
    values = [record[metric] for record in records]
    spread = f" ± {statistics.stdev(values):.{decimals}f} ({len(values)} seeds)" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{decimals}f}{spread}" if values else ""


def answer(found: dict[str, list[dict]]) -> str:
    """Whether a pair is better than the known ones, and what each branch does to the AP."""
    noise = Ratios.of_rows(read_rows(RECORDS.with_name("comparison"))["shapes_tiny"]).noise
    assert noise is not None, "schemes with several seeds"
    ratios = Ratios({name: {r["seed"]: r["ap"] for r in records} for name, records in found.items()}, noise)
    pairs = [name for name in ratios.best_first if " + " in name]

    def better_than(other: str) -> int:
        all_ratios = [ratio for name in pairs if name != other and (ratio := ratios.between(name, other))]
        return sum(not ratio.is_noise and ratio.mean > 1 for ratio in all_ratios)

    def row(title: str, changes: Iterable[tuple[str, str]]) -> list[object]:
        return [title, *(ratios.between(name_of(*new), name_of(*old)) or "" for new, old in changes)]

    rows = [
        [
            name,
            *("" if name == known else ratios.between(name, known) for known in (DATE_F, TAL_DUAL)),
            f"{statistics.fmean(r['ap_with_nms'] - r['ap'] for r in found[name]):.1f}",
            f"{statistics.fmean(r['duplicates'] for r in found[name]):.2f}",
            ", ".join(ratios.not_told_apart(name)),
        ]
        for name in ratios.best_first
    ]
    header = [
        "best first",
        "times the AP of DATE-F",
        "of TAL dual",
        "NMS gain",
        "duplicates",
        "cannot be told apart from",
    ]
    second = [many for many in ONE_TO_MANY if many != ALONE]
    return ANSWER.format(
        noise=100 * noise.spread,
        confidence=CONFIDENCE,
        separation=markdown(rows, header),
        others=len(pairs) - 1,
        to_date_f=better_than(DATE_F),
        to_tal=better_than(TAL_DUAL),
        best=(pairs[0], ratios.between(pairs[0], DATE_F), ratios.between(pairs[0], TAL_DUAL)),
        next=(pairs[1], ratios.between(pairs[1], DATE_F), ratios.between(pairs[1], TAL_DUAL)),
        worst=pairs[-1],
        second=markdown(
            [row(one, (((one, many), (one, ALONE)) for many in second)) for one in ONE_TO_ONE],
            ["first branch", *(f"beside {many}" for many in second)],
        ),
        first=markdown(
            [
                row(f"{new} in place of POTO", (((new, many), ("POTO", many)) for many in ONE_TO_MANY))
                for new in ONE_TO_ONE
                if new != "POTO"
            ],
            ["", *(f"beside {many}" for many in ONE_TO_MANY)],
        ),
        another=markdown(
            [
                row(f"{new} in place of FCOS", (((one, new), (one, "FCOS")) for one in ONE_TO_ONE))
                for new in second
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
