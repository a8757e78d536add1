#!/usr/bin/env python3
"""Compare schemes on a GPU in at most six minutes, for the case that a GPU is there for a short time.

1. The cost of a training step of each scheme, and of Detectron2's FCOS and RetinaNet, one after the other.
2. Trainings of all schemes, several at once on one GPU: ResNet-50 with AMP on `shapes`, 256-pixel images.
3. The report, docs/comparison_gpu.md unless --results says otherwise.

Every finished row has a record, so that the same command goes on where the time was up. A scheme that fails costs no
other one its row, nor the report.
"""

import _start as _start

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from la_det.comparison.schemes import SCHEMES
from la_det.errors import UserError, one_line_errors

SOME = ("fcos", "atss", "dw", "tood", "poto", "o2f", "date_f", "tal_dual")
DETECTRON2 = ("detectron2_fcos", "detectron2_retinanet")
FOR_REPORT = 15  # seconds
FOR_A_STOP = 5  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=350, help="time for all (default: %(default)s)")
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=SOME, metavar="SCHEME")
    parser.add_argument("--max-iter", type=int, default=200, help="iterations of each training (default: %(default)s)")
    parser.add_argument("--at-once", type=int, default=8, help="trainings at a time (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="steps of a cost (default: %(default)s)")
    parser.add_argument("--gpu", default="0", help="CUDA_VISIBLE_DEVICES of the trainings (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=Path("docs/comparison_gpu"), metavar="DIR")
    parser.add_argument("--output", type=Path, default=Path("output/comparison_gpu"), metavar="DIR")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no training is left behind
    end = time.monotonic() + args.seconds
    trained = end - FOR_REPORT - FOR_A_STOP
    common = ["--data", "shapes", "--results", args.results, "--schemes", *args.schemes]
    gpus = [args.gpu] * args.at_once
    steps = (
        (trained, "cost", *common, *DETECTRON2, "--rounds", 1, "--steps", args.steps),
        (trained, "run", *common, "--max-iter", args.max_iter, "--gpus", *gpus, "--output", args.output),
        (end, "report", "--results", args.results),
    )
    failed = [name for until, name, *options in steps if not compare(until, name, *options)]
    if failed:
        raise UserError(f"compare {', '.join(failed)}: failed, see above; the same command tries it again")


def compare(end: float, name: str, *options: object) -> bool:
    """Run `la-det compare` until it is done or until `end`, in seconds of `time.monotonic`; whether it did not fail.

    It is no failure if the time was up. Nothing that was started is left behind.
    """
    command = [sys.executable, "-m", "la_det", "compare", name, *map(str, options)]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        return process.wait(max(0.0, end - time.monotonic())) == 0
    except subprocess.TimeoutExpired:
        print(f"compare {name}: the time is up; the same command goes on", flush=True)
        return True
    finally:
        stop(process)


def stop(process: subprocess.Popen) -> None:
    """End a process that leads its own group, and all of its group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(FOR_A_STOP)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass


if __name__ == "__main__":
    with one_line_errors():
        main()
