"""Compare the schemes of the model zoo under one budget: train and evaluate them, measure their cost, report."""

from __future__ import annotations

import signal
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from la_det.cli.arguments import SHAPES, add_overrides, positive
from la_det.comparison import RESULTS
from la_det.errors import UserError

EXAMPLES = """
examples:
  all schemes:       %(prog)s run --data shapes_tiny --max-iter 1200
  three seeds:       %(prog)s run --data shapes_tiny --max-iter 1200 --schemes poto date_f --seeds 0 1 2
  four GPUs:         %(prog)s run --data shapes_crowd --max-iter 900 --gpus 0 1 2 3
  cost of a step:    %(prog)s cost --data shapes_tiny --schemes fcos poto detectron2_fcos detectron2_retinanet
  tables and plots:  %(prog)s report
  change an option:  %(prog)s run --data shapes_tiny --max-iter 1200 --opts train.amp.enabled=True

A finished run leaves one JSON file in --results and is not done again. After a stop, give the same command again.
"""


def add_arguments(parser: ArgumentParser, flags: bool) -> None:
    """The subcommands and their options."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="train and evaluate, with evaluations at every third of the training")
    _add_selection(run)
    budget = run.add_mutually_exclusive_group(required=True)
    budget.add_argument("--max-iter", type=positive, metavar="N", help="iterations of each run")
    budget.add_argument("--seconds", type=positive, metavar="S", help="as many as fit, by the times of `cost`")
    run.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED")
    run.add_argument("--gpus", nargs="+", default=[None], metavar="GPU", help="one run at a time on each of these GPUs")
    run.add_argument("--output", type=Path, default=Path("output/comparison"), help="for the trainings (%(default)s)")
    run.set_defaults(do=run_schemes)

    cost = commands.add_parser("cost", help="time the training steps; needs a quiet machine")
    _add_selection(cost)
    cost.add_argument("--rounds", type=positive, default=5, help="rounds over all schemes (%(default)s)")
    cost.add_argument("--steps", type=positive, default=20, help="steps of a round; the median counts (%(default)s)")
    cost.set_defaults(do=measure_schemes)

    report = commands.add_parser("report", help="write tables and plots of the results")
    _add_results(report)
    report.set_defaults(do=report_schemes)


def run(args: Namespace) -> None:
    """Do what the subcommand says."""
    from detectron2.utils.logger import setup_logger

    setup_logger(name="la_det")
    args.do(args)


def run_schemes(args: Namespace) -> None:
    """Train and evaluate all schemes that have no result yet."""
    from la_det.comparison.cost import iterations_in
    from la_det.comparison.results import Run
    from la_det.comparison.run import Runner
    from la_det.comparison.schemes import SCHEMES, config_name

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no training is left behind
    budget = {"max_iter": args.max_iter} if args.max_iter else {"seconds": args.seconds}
    runs = [
        Run(
            config=config_name(scheme, args.data),
            seed=seed,
            budget=budget,
            max_iter=args.max_iter or iterations_in(args.seconds, scheme, args.data, args.results),
            overrides=args.opts,
        )
        for seed in args.seeds
        for scheme in args.schemes or SCHEMES
    ]
    failed = Runner(args.results, args.output).do(runs, args.gpus)
    if failed:
        raise UserError(f"{args.output}: {len(failed)} runs failed ({', '.join(run.name for run in failed)})")


def measure_schemes(args: Namespace) -> None:
    """Time the training steps of all schemes."""
    from la_det.comparison.cost import measure_all
    from la_det.comparison.schemes import SCHEMES

    measure_all(args.schemes or SCHEMES, args.data, args.opts, args.rounds, args.steps, args.results)


def report_schemes(args: Namespace) -> None:
    """Write tables and plots, and print the name of their page."""
    from la_det.comparison.report import write_report

    print(write_report(args.results))


def _add_selection(parser: ArgumentParser) -> None:
    parser.add_argument("--data", choices=SHAPES, required=True, help="data set, which selects the configs")
    parser.add_argument(
        "--schemes",
        nargs="+",
        metavar="SCHEME",
        help="beginnings of the names of configs, such as poto (default: all that are compared)",
    )
    add_overrides(parser, flag=True)
    _add_results(parser)


def _add_results(parser: ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="JSON files (%(default)s)")
