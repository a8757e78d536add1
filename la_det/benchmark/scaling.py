"""Growth of the cost of assignment with the number of ground truths and with the size of the image."""

import argparse
import itertools
import math
import sys
from collections.abc import Iterator

import torch
from tabulate import tabulate

from la_det.benchmark.matching import SCHEMES, chosen, median_ms, scheme_case
from la_det.benchmark.memory import keep_freed_memory
from la_det.benchmark.scene import HEIGHT, WIDTH

BY_GTS = ("poto", "o2f", "dw", "date_f_crowdhuman")
BY_PIXELS = ("poto", "o2f", "dw")
HEADER = ("scheme", "ground truths", "height", "width", "assign ms", "exponent")


def run(args: argparse.Namespace) -> None:
    """Prints both tables. Exponent e: the cost grew like the number of ground truths, or of pixels, to the power e."""
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    print(f"torch {torch.__version__}, {args.threads} threads, device {args.device}", file=sys.stderr)
    schemes = args.schemes and chosen(args.schemes, SCHEMES)
    by_gts = [(scheme, [(g, (HEIGHT, WIDTH)) for g in args.gts], args.gts) for scheme in schemes or BY_GTS]
    pixels = [side * side for side in args.sizes]
    by_pixels = [(scheme, [(20, (side, side)) for side in args.sizes], pixels) for scheme in schemes or BY_PIXELS]
    for cases in by_gts, by_pixels:
        rows = itertools.chain.from_iterable(_rows(*case, args.device, args.repeats) for case in cases)
        print(tabulate(rows, HEADER, tablefmt="github", disable_numparse=True), end="\n\n")


def _rows(
    scheme: str, cases: list[tuple[int, tuple[int, int]]], scale: list[int], device: str, repeats: int
) -> Iterator[list]:
    """A row for each case; the last column compares the case with the first case."""
    times = []
    for (num_gts, size), x in zip(cases, scale, strict=True):
        print(f"{scheme}, {num_gts} ground truths, {size[0]} x {size[1]}", file=sys.stderr)
        times.append(assignment_ms(scheme, num_gts, size, device, repeats))
        growth = f"{math.log(times[-1] / times[0]) / math.log(x / scale[0]):.2f}" if x != scale[0] else ""
        yield [scheme, num_gts, *size, f"{times[-1]:.1f}", growth]


def assignment_ms(scheme: str, num_gts: int, size: tuple[int, int], device: str, repeats: int) -> float:
    """Median milliseconds of the assignment of two images of (height, width) with `num_gts` ground truths each."""
    return median_ms(scheme_case(scheme, num_gts, device, size).assign, repeats, device)
