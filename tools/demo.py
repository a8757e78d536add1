#!/usr/bin/env python3
"""Detect objects in images, folders and videos: write annotated pictures, and detections in COCO's result format."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from tabulate import tabulate

from la_det import Predictor
from la_det.demo.inputs import Frame, batches, find_files, read_frames
from la_det.demo.outputs import Detections, Pictures
from la_det.engine.setup import load_config
from la_det.errors import UserError, one_line_errors
from la_det.export.onnx_detector import OnnxPredictor

DESCRIPTION = """
Detect objects in images, folders and videos.

The output folder gets an annotated picture or video for every input; detections.json, in COCO's result format; and
images.json, a COCO data set without annotations that has the image ids of detections.json. Files that cannot be read
are named and skipped. Exit status: 0 if no file was skipped, 1 if files were skipped, 2 if nothing could be done.
"""

EXAMPLES = """
examples:
  a folder:   %(prog)s --config-file POTO/poto_r18_fpn_shapes_tiny --weights output/demo/model_final.pth pictures/
  a video:    %(prog)s --config-file output/demo/config.yaml --weights output/demo/model_final.pth clip.mp4
  with NMS:   %(prog)s --config-file CONFIG --weights FILE a.jpg b.png --opts model.inference.nms_threshold=0.6
  on the CPU: %(prog)s --config-file CONFIG --weights FILE pictures/ --device cpu
  exported:   %(prog)s --onnx poto.onnx pictures/
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="image, video, or folder of these")
    parser.add_argument("--config-file", metavar="CONFIG", help="LazyConfig: file or name")
    parser.add_argument("--weights", metavar="FILE", help="trained weights, file or address")
    parser.add_argument("--onnx", metavar="FILE", help="instead of both, a file of tools/export_model.py")
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], help="default: train.device of the config, the CPU for an ONNX file"
    )
    parser.add_argument("--output", type=Path, default=Path("output/pictures"), metavar="FOLDER")
    parser.add_argument("--min-score", type=float, default=0.3, help="smallest score of a detection")
    parser.add_argument("--batch-size", type=int, default=4, help="images, or pictures of a video, in a batch")
    parser.add_argument("--opts", nargs="+", default=[], metavar="key=value", help="options of the config to change")
    return parser


def main(args: argparse.Namespace) -> int:
    """Detect as the arguments say. Return the exit status."""
    if args.batch_size < 1:
        raise UserError(f"--batch-size {args.batch_size}: at least one image")
    files = find_files(args.inputs)
    predictor = build_predictor(args)
    args.output.mkdir(parents=True, exist_ok=True)
    skipped: dict[Path, str] = {}
    detections = Detections(predictor.metadata)
    seconds = 0.0
    with Pictures(args.output, files, predictor.metadata) as pictures:
        for batch in batches(readable_frames(files, skipped), args.batch_size):
            start = time.perf_counter()
            found = predictor([frame.image for frame in batch])
            seconds += time.perf_counter() - start
            for frame, instances in zip(batch, found, strict=True):
                kept = instances[instances.scores >= args.min_score]
                pictures.write(frame, kept)
                detections.add(frame, kept)
    detections.write(args.output)
    print(summary(detections, seconds))
    print(f"{len(files) - len(skipped)} of {len(files)} files done; pictures and detections.json in {args.output}")
    for reason in skipped.values():
        print(f"skipped: {reason}", file=sys.stderr)
    return 1 if skipped else 0


def build_predictor(args: argparse.Namespace) -> Predictor:
    """The predictor of the config and weights, or of the exported file, that the arguments name."""
    if args.config_file and args.weights and not args.onnx:
        device = [f"train.device={args.device}"] if args.device else []
        return Predictor(load_config(args.config_file, args.opts + device), args.weights)
    if not args.onnx or args.config_file or args.weights or args.opts:
        raise UserError("give either --config-file and --weights, or --onnx FILE")
    return OnnxPredictor(args.onnx, args.device or "cpu")


def readable_frames(files: Sequence[Path], skipped: dict[Path, str]) -> Iterator[Frame]:
    """All frames of all files, with a progress bar; files that cannot be read go into `skipped` with the reason."""
    for file in track(files, "detecting", console=Console(stderr=True)):
        try:
            yield from read_frames(file)
        except UserError as error:
            skipped[file] = str(error)


def summary(detections: Detections, seconds: float) -> str:
    """Number of detections of each class, and time per image."""
    names: Mapping[int, str] = {category["id"]: category["name"] for category in detections.categories}
    counts = Counter(names.get(d["category_id"], str(d["category_id"])) for d in detections.detections)
    rows = [*counts.most_common(), ("all", counts.total())]
    table = tabulate(rows, ["class", "detections"], tablefmt="pipe")
    images = len(detections.images)
    return f"{table}\n{images} images, {1000 * seconds / max(images, 1):.0f} ms per image in the model"


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main(build_parser().parse_args()))
