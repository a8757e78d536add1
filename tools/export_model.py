#!/usr/bin/env python3
"""Export a trained detector as one graph from normalised images to detections.

One-to-one schemes have no NMS: the tool checks that their ONNX graph has no NonMaxSuppression node. The graph holds
only what inference runs, without training branches. The file contains the names of its classes and how images are to
be prepared (docs/export.md).
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from la_det.engine.setup import load_config
from la_det.errors import UserError, one_line_errors
from la_det.export.export import Options, export
from la_det.export.formats import OPSET, WRITERS

EXAMPLES = f"""
examples:
  any batch and image size: %(prog)s --config-file POTO/poto_r18_fpn_shapes_tiny --weights model_final.pth \\
                                --output poto.onnx
  fixed, for TensorRT:      %(prog)s --config-file CONFIG --weights FILE --output poto.onnx \\
                                --batch-size 1 --image-size 800 1344 --half
  without its NMS:          %(prog)s --config-file FCOS/fcos_r50_fpn_3x_ms_coco --weights FILE --output fcos.onnx \\
                                --raw-candidates
  for torch.export.load:    %(prog)s --config-file CONFIG --weights FILE --output poto.pt2 --format torch-export

ONNX files have opset {OPSET}.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="CONFIG", help="LazyConfig: file or name")
    parser.add_argument("--weights", required=True, metavar="FILE", help="trained weights, file or address")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="file to write")
    parser.add_argument("--format", choices=sorted(WRITERS), default="onnx")
    parser.add_argument("--batch-size", type=int, metavar="N", help="fix the number of images (default: any)")
    parser.add_argument(
        "--image-size", type=int, nargs=2, metavar=("H", "W"), help="fix the input's size (default: multiples of 32)"
    )
    parser.add_argument("--half", action="store_true", help="half precision inside; inputs and outputs stay float32")
    parser.add_argument(
        "--raw-candidates", action="store_true", help="one-to-many schemes: write all candidates, leave NMS to you"
    )
    parser.add_argument("--opts", nargs="+", default=[], metavar="key=value", help="options of the config to change")
    return parser


def main(args: argparse.Namespace) -> None:
    """Export as the arguments say."""
    if args.batch_size is not None and args.batch_size < 1:
        raise UserError(f"--batch-size {args.batch_size}: at least one image")
    options = Options(
        format=args.format,
        batch_size=args.batch_size,
        image_size=tuple(args.image_size) if args.image_size else None,
        half=args.half,
        raw=args.raw_candidates,
    )
    metadata = export(load_config(args.config_file, args.opts), args.config_file, args.weights, args.output, options)
    nms = {"none": "no NMS", "graph": "NMS in the graph", "outside": "candidates before NMS"}[metadata.nms]
    megabytes = args.output.stat().st_size / 1e6
    print(f"{args.output}: {len(metadata.classes)} classes, {nms}, {megabytes:.1f} MB")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("la_det").setLevel(logging.INFO)
    with one_line_errors():
        main(build_parser().parse_args())
