#!/usr/bin/env python3
"""Count the parameters and operations of a detector, and time an image: preprocess, backbone, head, postprocess."""

from __future__ import annotations

import _start as _start

import argparse
import sys

import numpy as np
import torch
from tabulate import tabulate

from la_det.benchmark.analysis import PARTS, Analysis, analyze
from la_det.engine.setup import load_config
from la_det.errors import UserError, one_line_errors
from la_det.predictor import Predictor

EXAMPLES = """
examples:
  a recipe at COCO's usual size: %(prog)s POTO/poto_r50_fpn_3x_ms_coco
  trained weights:               %(prog)s output/demo/config.yaml --weights output/demo/model_final.pth --size 128 128
  without NMS, on the CPU:       %(prog)s FCOS/fcos_r50_fpn_3x_ms_coco --opts model.inference.nms_threshold=null \\
                                     train.device=cpu

The image is noise. Random weights find next to nothing in it: give --weights if the time of postprocessing matters.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", metavar="CONFIG", help="LazyConfig: file or name")
    parser.add_argument("--weights", metavar="FILE", help="trained weights, file or address (default: random)")
    parser.add_argument(
        "--size", nargs=2, type=int, default=(480, 640), metavar=("HEIGHT", "WIDTH"), help="image size (480 640)"
    )
    parser.add_argument("--repeats", type=int, default=10, help="calls whose median counts")
    parser.add_argument("--opts", nargs="+", default=[], metavar="key=value", help="options of the config to change")
    return parser


def main(args: argparse.Namespace) -> None:
    """Measure, and print a table."""
    cfg = load_config(args.config, args.opts)
    if "head" not in cfg.model:
        raise UserError(f"{args.config}: its model is none of this project's dense detectors; choose another config")
    predictor = Predictor(cfg, args.weights)
    device = predictor.model.device
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, device {device}", file=sys.stderr)
    image = np.random.default_rng(0).integers(0, 256, (*args.size, 3), dtype=np.uint8)
    print(report(analyze(predictor, image, args.repeats)))


def report(analysis: Analysis) -> str:
    """The analysis as a table."""
    figures = (analysis.parameters, analysis.giga_flops, analysis.milliseconds)
    rows = [[part, *(of_part.get(part) for of_part in figures)] for part in PARTS]
    rows.append(["all", *(sum(of_part.values()) for of_part in figures)])
    header = ["part", "parameters, M", "GFLOPs", "ms per image"]
    table = tabulate(rows, header, tablefmt="github", floatfmt=".2f")
    height, width = analysis.input_size
    more = f"{analysis.training_parameters:.2f} M more parameters in training"
    return f"{table}\nnetwork input {height} x {width}; {more}"


if __name__ == "__main__":
    with one_line_errors():
        main(build_parser().parse_args())
