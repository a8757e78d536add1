#!/usr/bin/env python3
"""Compare the schemes of the model zoo under one budget: train and evaluate them, measure their cost, report."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from detectron2.utils.logger import setup_logger

from la_det.comparison.records import Run
from la_det.comparison.run import Runner
from la_det.comparison.schemes import ENDINGS, SCHEMES, config_name
from la_det.errors import UserError, one_line_errors

EXAMPLES = """
examples:
  all schemes:       %(prog)s run --data shapes_tiny --max-iter 1200
  three seeds:       %(prog)s run --data shapes_tiny --max-iter 1200 --schemes poto date_f --seeds 0 1 2
  four GPUs:         %(prog)s run --data shapes_crowd --max-iter 900 --gpus 0 1 2 3
  change an option:  %(prog)s run --data shapes_tiny --max-iter 1200 --opts train.ema.enabled=True

A finished run leaves one JSON file in --results, and is not done again: after a stop, give the same command.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="train and evaluate, with evaluations at every third of the training")
    _add_selection(run)
    run.add_argument("--max-iter", type=_positive, required=True, metavar="N", help="iterations of each run")
    run.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED")
    run.add_argument("--gpus", nargs="+", default=[None], metavar="GPU", help="one run at a time on each of these")
    run.add_argument("--output", type=Path, default=Path("output/comparison"), help="of the trainings (%(default)s)")
    run.add_argument(
        "--opts",
        nargs="+",
        default=[],
        metavar="key=value",
        help="options of the configs to change, as in train_net.py",
    )
    run.set_defaults(command=run_schemes)
    return parser


def run_schemes(args: argparse.Namespace) -> None:
    configs = [config_name(scheme, args.data) for scheme in args.schemes]
    runs = [
        Run(config, seed, {"max_iter": args.max_iter}, args.max_iter, args.opts)
        for seed in args.seeds
        for config in configs
    ]
    failed = Runner(Path(__file__).with_name("train_net.py"), args.results, args.output).do(runs, args.gpus)
    if failed:
        raise UserError(f"{args.output}: {len(failed)} runs failed ({', '.join(run.name for run in failed)})")


def _add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", choices=ENDINGS, required=True, help="data set, which picks the configs")
    parser.add_argument("--schemes", nargs="+", default=SCHEMES, metavar="SCHEME", help=f"default: {' '.join(SCHEMES)}")
    _add_results(parser)


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results", type=Path, default=Path("docs/comparison"), metavar="DIR", help="JSON files (%(default)s)"
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def main() -> None:
    args = build_parser().parse_args()
    setup_logger(name="la_det")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no training is left behind
    with one_line_errors():
        args.command(args)


if __name__ == "__main__":
    main()
