#!/usr/bin/env python
"""Measure speed and memory.

matching: cost of assignment and losses on a scene at real size (two images of 800 x 1333, prediction maps given),
beside what the official implementations cost and this project's targets; every case in a fresh process.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from tabulate import tabulate

from la_det.benchmark.matching import HEADER, SCHEMES, measure_in_fresh_process, table_row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    matching = commands.add_parser("matching", help="cost of assignment and losses")
    matching.add_argument("--schemes", nargs="+", choices=sorted(SCHEMES), default=list(SCHEMES), metavar="SCHEME")
    matching.add_argument("--gts", nargs="+", type=int, default=[7, 20, 100, 300], help="ground truths per image")
    matching.add_argument("--device", default="cpu")
    matching.add_argument("--repeats", type=int, default=9, help="calls whose median counts")
    matching.add_argument("--threads", type=int, default=2, help="CPU threads; the official figures used 2")
    matching.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    args = parser.parse_args()
    run_matching(args)


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
    print(tabulate(rows, HEADER, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
