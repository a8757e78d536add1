#!/usr/bin/env python3
"""Measure time and memory of reading and checking annotations, and the memory that worker processes add.

`read` reads one generated COCO file of the given size with la_det and with Detectron2, each in a process of its own.
`workers` holds the records of one generated file in a training loader with 1 and with 4 workers, and prints the memory
of all its processes together. Shared memory counts once.
"""

from __future__ import annotations

import _start as _start

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tabulate import tabulate

EXAMPLES = """
examples:
  a file of COCO's size:        %(prog)s read
  without outlines:             %(prog)s read --points 0
  memory of 1 and of 4 workers: %(prog)s workers --images 1000000 --boxes 10000000
"""
WORKERS = (1, 4)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["read", "workers", "_read", "_workers"], metavar="{read,workers}")
    parser.add_argument("--images", type=int, default=118_000)
    parser.add_argument("--boxes", type=int, default=860_000)
    parser.add_argument(
        "--points", type=int, default=20, help="points of an object's outline, on average; 0 for boxes only"
    )
    parser.add_argument("--repeats", type=int, default=3, help="times to read; the fastest counts")
    parser.add_argument("--file", help=argparse.SUPPRESS)
    parser.add_argument("--by", help=argparse.SUPPRESS)
    return parser


def write_coco(path: str, num_images: int, num_boxes: int, points: int) -> None:
    """Write a COCO file of 640 x 480 images and 80 classes, piece by piece."""
    rng = np.random.default_rng(0)
    with open(path, "w") as file:
        images = (
            json.dumps({"id": i + 1, "file_name": f"{i + 1:012d}.jpg", "width": 640, "height": 480})
            for i in range(num_images)
        )
        file.write('{"images": [' + ", ".join(images) + '], "annotations": [')
        for start in range(0, num_boxes, 100_000):
            count = min(100_000, num_boxes - start)
            corners = (rng.random((count, 2)) * (540, 380)).round(2).tolist()
            sizes = (rng.random((count, 2)) * 98 + 2).round(2).tolist()
            image = rng.integers(1, num_images + 1, count).tolist()
            category = rng.integers(1, 81, count).tolist()
            lengths = rng.integers(3, max(2 * points - 2, 4), count).tolist()
            outlines = (rng.random((sum(lengths) if points else 0, 2)) * 99).round(2).tolist()
            rows, used = [], 0
            for i in range(count):
                (x, y), (w, h) = corners[i], sizes[i]
                row = {"id": start + i + 1, "image_id": image[i], "category_id": category[i], "bbox": [x, y, w, h]}
                row |= {"area": round(w * h, 2), "iscrowd": 0}
                if points:
                    part = outlines[used : used + lengths[i]]
                    used += lengths[i]
                    row["segmentation"] = [[round(v, 2) for px, py in part for v in (x + px, y + py)]]
                rows.append(json.dumps(row))
            file.write((", " if start else "") + ", ".join(rows))
        categories = json.dumps([{"id": i, "name": f"class {i}"} for i in range(1, 81)])
        file.write(f'], "categories": {categories}}}')


def read_once(by: str, path: str) -> dict[str, float]:
    """Seconds of reading, and the peak memory beyond that before reading, in GB."""
    from detectron2.data.datasets import load_coco_json

    from la_det.data.coco import read_coco

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    records = read_coco(path, "images") if by == "la_det" else load_coco_json(path, "images", "benchmark")
    seconds = time.perf_counter() - start
    assert len(records) > 0
    return {"seconds": seconds, "GB": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6}


def hold(path: str, num_workers: int) -> dict[str, float]:
    """Memory, in GB, of a training loader's processes while it gives batches; shared memory counts once."""
    from la_det.data.coco import read_coco
    from la_det.data.loader import build_train_loader

    loader = build_train_loader(
        dataset=read_coco(path, "images"), mapper=_without_pixels, total_batch_size=16, num_workers=num_workers
    )
    batches = iter(loader)
    for _ in range(2000):
        next(batches)
    processes = [os.getpid(), *(worker.pid for worker in batches._workers)]
    return {"GB": sum(map(_proportional_memory, processes)) / 1e6}


def _without_pixels(record: dict) -> dict:
    return record


def _proportional_memory(pid: int) -> int:
    """Memory of a process in kB, with its share of shared pages."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _in_process(*arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(args: argparse.Namespace) -> None:
    """Measure, and print a table."""
    if args.what == "_read":
        print(json.dumps(read_once(args.by, args.file)))
        return
    if args.what == "_workers":
        print(json.dumps(hold(args.file, int(args.by))))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "coco.json")
        write_coco(path, args.images, args.boxes, args.points)
        print(f"{args.images} images, {args.boxes} boxes, {os.path.getsize(path) / 1e6:.0f} MB of JSON", flush=True)
        if args.what == "read":
            rows = []
            for by in ("Detectron2", "la_det"):
                runs = [_in_process("_read", "--file", path, "--by", by) for _ in range(args.repeats)]
                rows.append([by, *(min(run[key] for run in runs) for key in ("seconds", "GB"))])
            rows.append(["ratio", *(mine / theirs for theirs, mine in zip(rows[0][1:], rows[1][1:], strict=True))])
            print(tabulate(rows, ["read by", "seconds", "peak memory, GB"], tablefmt="github", floatfmt=".2f"))
        else:
            rows = [(n, _in_process("_workers", "--file", path, "--by", str(n))["GB"]) for n in WORKERS]
            print(tabulate(rows, ["workers", "memory of all processes, GB"], tablefmt="github", floatfmt=".2f"))
            print(f"ratio {rows[1][1] / rows[0][1]:.2f}")


if __name__ == "__main__":
    main(build_parser().parse_args())
