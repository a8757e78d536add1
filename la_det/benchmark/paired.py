"""This checkout beside another one, call by call in turn, so that a noisy machine troubles both alike."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_WORKER = r"""
import json, sys, time
import torch
from la_det.benchmark.matching import CROWD_SCHEMES, build_case
from la_det.benchmark.scene import make_scene

scheme, num_gts, threads = json.loads(sys.argv[1])
torch.set_num_threads(threads)
torch.empty(31 << 20, dtype=torch.uint8)  # see build_case: an older checkout may lack it
num_classes, crowd = (1, True) if scheme in CROWD_SCHEMES else (80, False)
case = build_case(scheme, make_scene(num_gts, num_classes, crowd=crowd), num_classes, "cpu")
case.train()
with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
    case.train()
held = peak = 0
for event in profile.profiler.kineto_results.events():
    if event.name() == "[memory]":
        held += event.nbytes()
        peak = max(peak, held)
print(json.dumps(peak / 2**20), flush=True)
for line in sys.stdin:
    start = time.process_time()
    getattr(case, line.strip())()
    print(json.dumps(1000 * (time.process_time() - start)), flush=True)
"""


@dataclass(frozen=True)
class Pair:
    """Medians of this checkout and the other one.

    Attributes:
        ours, theirs: milliseconds of CPU time, which other programs disturb less than the wall's.
        ratio: median of ours / theirs of each turn.
        memory: peak of what a call has allocated, ours / theirs.
    """

    ours: float
    theirs: float
    ratio: float
    memory: float


def compare(scheme: str, num_gts: int, other: Path, *, call: str, pairs: int, threads: int) -> Pair:
    """`Case.assign` or `Case.train` of a scheme in both checkouts, on a CPU."""
    here = Path(__file__).parents[2]
    arguments = json.dumps([scheme, num_gts, threads])
    with _worker(here, arguments) as ours, _worker(other, arguments) as theirs:
        memory = _answer(ours) / _answer(theirs)
        times = []
        for turn in range(pairs + 1):
            order = (ours, theirs) if turn % 2 else (theirs, ours)
            taken = {id(worker): _ask(worker, call) for worker in order}
            times.append((taken[id(ours)], taken[id(theirs)]))
    times = times[1:]  # the first is a warm-up
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    return Pair(a, b, statistics.median(x / y for x, y in times), memory)


@contextmanager
def _worker(checkout: Path, arguments: str) -> Iterator[subprocess.Popen]:
    environment = os.environ | {"PYTHONPATH": str(checkout), "PYTHONWARNINGS": "ignore", "KINETO_LOG_LEVEL": "99"}
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
