#!/usr/bin/env python3
"""Compare la_det with the official implementations' numbers.

For each golden file, the tool prints the worst error of every kind of quantity beside its tolerance. The name of the
file's folder is the method. Files of models that la_det does not have are listed as not built. The exit
status is 1 if an error is larger than its tolerance, if a file is unknown or nothing in it was recognised, or if a
quantity has no implementation and --allow-missing does not name it.
"""

import _start as _start

import argparse
import math
import re
import sys
from pathlib import Path

import torch

from la_det.testing.check import Report, check_file, find_files
from la_det.testing.golden import Comparison


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="golden file or folder")
    parser.add_argument(
        "--allow-missing",
        nargs="+",
        action="extend",
        default=[],
        metavar="VARIANT",
        help="variants or keys that need no implementation",
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="device that computes (%(default)s)")
    parser.add_argument("-v", "--verbose", action="store_true", help="print a line for every quantity")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no GPU that torch can use; see tools/doctor.py")
    try:
        files = find_files(args.paths)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    reports = []
    for file in files:
        reports.append(check_file(file, args.allow_missing, args.device))
        print_report(reports[-1], args.verbose)
    passed = sum(report.passed for report in reports)
    not_built = sum(report.not_built is not None for report in reports)
    failed = len(reports) - passed - not_built
    print(f"{passed} passed, {failed} failed" + (f", {not_built} not built" if not_built else ""))
    return 1 if failed else 0


def print_report(report: Report, verbose: bool) -> None:
    """One line per file, and one per failure."""
    if report.not_built:
        print(f"--   {report.path}\n     not built: {report.not_built}")
        return
    print(f"{'ok  ' if report.passed else 'FAIL'} {report.path}")
    if report.error:
        print(f"     {report.error}")
    shown = report.comparisons if verbose else worst_of_each_kind(report.comparisons)
    for c in shown:
        print(f"     {'ok  ' if c.passed else 'MISS'} {c.key:<36} error {c.error:.1e}  tolerance {c.tolerance:.0e}")
    if report.missing:
        print(f"     not implemented: {', '.join(report.missing)}")
    if report.allowed:
        variants = sorted({key.split(".")[0] for key in report.allowed})
        print(f"     allowed to be missing: {', '.join(variants)} ({len(report.allowed)} quantities)")


def worst_of_each_kind(comparisons: tuple[Comparison, ...]) -> list[Comparison]:
    """The worst comparison, relative to its tolerance, of the keys that differ only in numbers (levels, images)."""
    worst: dict[str, Comparison] = {}
    for c in comparisons:
        kind = re.sub(r"(^|_)(l?)\d+", r"\1\2*", c.key)
        if kind not in worst or _badness(c) > _badness(worst[kind]):
            worst[kind] = c
    return list(worst.values())


def _badness(c: Comparison) -> float:
    error = math.inf if math.isnan(c.error) else c.error
    return error / c.tolerance if c.tolerance else error


if __name__ == "__main__":
    sys.exit(main())
