#!/usr/bin/env python3
"""Count the parameters and operations of a detector, and time an image: preprocess, backbone, head, postprocess."""

from __future__ import annotations

import argparse
import sys

import numpy as np
import torch
from tabulate import tabulate

from la_det.benchmark.analysis import PARTS, Analysis, analyze
from la_det.engine.setup import load_config
from la_det.errors import UserError, one_line_errors
from la_det.modeling.meta_arch import AssignmentDetector
from la_det.predictor import Predictor

EXAMPLES = """
examples:
  a recipe at COCO's usual size: %(prog)s POTO/poto_r50_fpn_3x_ms_coco
  trained weights:               %(prog)s output/demo/config.yaml --weights output/demo/model_final.pth --size 128 128
  without NMS, on the CPU:       %(prog)s FCOS/fcos_r50_fpn_3x_ms_coco --opts model.inference.nms_threshold=null \\
                                     train.device=cpu

The image is noise. Random weights find next to nothing in it: give --weights where the postprocessing matters.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", metavar="CONFIG", help="LazyConfig: file or name")
    parser.add_argument("--weights", metavar="FILE", help="trained weights, file or address (default: random)")
    parser.add_argument(
        "--size", nargs=2, type=int, default=(480, 640), metavar=("HEIGHT", "WIDTH"), help="of the image (480 640)"
    )
    parser.add_argument("--repeats", type=int, default=10, help="calls whose median counts")
    parser.add_argument("--opts", nargs="+", default=[], metavar="key=value", help="options of the config to change")
    return parser


def main(args: argparse.Namespace) -> None:
    """Run and print a table."""
    predictor = Predictor(load_config(args.config, args.opts), args.weights)
    if not isinstance(predictor.model, AssignmentDetector):
        raise UserError(f"{args.config}: {type(predictor.model).__name__} is no dense detector of this project")
    device = predictor.model.device
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, device {device}", file=sys.stderr)
    image = np.random.default_rng(0).integers(0, 256, (*args.size, 3), dtype=np.uint8)
    print(report(analyze(predictor, image, args.repeats)))


def report(analysis: Analysis) -> str:
    """The analysis as a table."""
    figures = (analysis.parameters, analysis.giga_flops, analysis.milliseconds)
    rows = [[part, *(of_part.get(part) for of_part in figures)] for part in PARTS]
    rows.append(["all", *(sum(of_part.values()) for of_part in figures)])
    height, width = analysis.input_size
    table = tabulate(rows, ["part", "parameters, M", "GFLOPs", "ms per image"], tablefmt="github", floatfmt=".2f")
    return (
        f"{table}\nnetwork input {height} x {width}; {analysis.training_parameters:.2f} M more parameters in training"
    )


if __name__ == "__main__":
    with one_line_errors():
        main(build_parser().parse_args())
