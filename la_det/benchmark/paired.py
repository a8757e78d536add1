"""This checkout beside another one, call by call in turn, so that a noisy machine disturbs both alike."""

import argparse
import inspect
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from la_det.benchmark.matching import CROWD_SCHEMES, SCHEMES, chosen
from la_det.benchmark.memory import peak_allocated_mib
from la_det.errors import UserError

# This program also runs in a checkout that is older than this module.
_WORKER = f"""
import json, os, sys, time
from collections.abc import Callable
import torch

{inspect.getsource(peak_allocated_mib)}
from la_det.benchmark.matching import SCHEMES, build_case
from la_det.benchmark.scene import make_scene

scheme, config, crowd, num_gts, threads = json.loads(sys.argv[1])
torch.set_num_threads(threads)
torch.empty(31 << 20, dtype=torch.uint8)  # see build_case: an older checkout may lack it
SCHEMES[scheme] = config  # the other checkout may name it otherwise
num_classes = 1 if crowd else 80
case = build_case(scheme, make_scene(num_gts, num_classes, crowd=crowd), num_classes, "cpu")
case.train()
print(json.dumps(peak_allocated_mib(case.train)), flush=True)
for line in sys.stdin:
    start = time.process_time()
    getattr(case, line.strip())()
    print(json.dumps(1000 * (time.process_time() - start)), flush=True)
"""


@dataclass(frozen=True)
class Pair:
    """Medians of this checkout and the other one.

    Attributes:
        ours, theirs: milliseconds of CPU time, which other programs disturb less than wall time.
        ratio: median of ours / theirs over the turns.
        memory: peak of the memory that a call allocates, ours / theirs.
    """

    ours: float
    theirs: float
    ratio: float
    memory: float


def compare(scheme: str, num_gts: int, other: Path, *, call: str, pairs: int, threads: int) -> Pair:
    """Compares `Case.assign` or `Case.train` of a scheme in both checkouts, on a CPU."""
    here = Path(__file__).parents[2]
    arguments = json.dumps([scheme, SCHEMES[scheme], scheme in CROWD_SCHEMES, num_gts, threads])
    with _worker(here, arguments) as ours, _worker(other, arguments) as theirs:
        memory = _answer(ours) / _answer(theirs)
        times = []
        for turn in range(pairs + 1):
            order = (ours, theirs) if turn % 2 else (theirs, ours)
            taken = {id(worker): _ask(worker, call) for worker in order}
            times.append((taken[id(ours)], taken[id(theirs)]))
    times = times[1:]  # the first turn is a warm-up
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    return Pair(a, b, statistics.median(x / y for x, y in times), memory)


def run(args: argparse.Namespace) -> None:
    """Prints a row for every scheme and number of ground truths, and each scheme's geometric mean."""
    if not (args.other / "la_det" / "benchmark" / "matching.py").is_file():
        raise UserError(f"--other {args.other}: it has no la_det/benchmark/matching.py; expected is a checkout")
    rows = []
    for scheme in chosen(args.schemes, SCHEMES):
        found = []
        for num_gts in args.gts:
            print(f"{scheme}, G = {num_gts}", file=sys.stderr)
            pair = compare(scheme, num_gts, args.other, call=args.call, pairs=args.pairs, threads=args.threads)
            found.append(pair)
            cells = [f"{pair.ours:.1f}", f"{pair.theirs:.1f}", f"{pair.ratio:.2f}", f"{pair.memory:.2f}"]
            rows.append([scheme, num_gts, *cells])
        means = [statistics.geometric_mean(getattr(pair, name) for pair in found) for name in ("ratio", "memory")]
        rows.append([scheme, "mean", "", "", *(f"{mean:.2f}" for mean in means)])
    header = ["scheme", "G", "ours ms", "theirs ms", "ours / theirs", "memory, ours / theirs"]
    print(tabulate(rows, header, tablefmt="github", disable_numparse=True))


@contextmanager
def _worker(checkout: Path, arguments: str) -> Iterator[subprocess.Popen]:
    # glibc keeps freed memory, as it does in a training. Otherwise it may give memory back to the system in every call,
    # and the page faults of the next call, which depend on luck, take as long as the call.
    keep = dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), str(1 << 30))
    environment = os.environ | keep | {"PYTHONPATH": str(checkout), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", _WORKER, arguments]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=checkout
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _ask(worker: subprocess.Popen, call: str) -> float:
    worker.stdin.write(call + "\n")
    worker.stdin.flush()
    return _answer(worker)


def _answer(worker: subprocess.Popen) -> float:
    line = worker.stdout.readline()
    if not line:
        raise RuntimeError("a benchmark process ended early; its error is printed above")
    return json.loads(line)
