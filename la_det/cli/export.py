"""Export a trained detector as one graph from normalised images to detections.

One-to-one schemes have no NMS: the command checks that their ONNX graph has no NonMaxSuppression node. The graph holds
only what inference runs, without training branches. The file contains the names of its classes and how images are to
be prepared (docs/export.md).
"""

from __future__ import annotations

import logging
from argparse import ArgumentParser, Namespace
from pathlib import Path

from la_det.cli.arguments import DATASETS, add_config, add_overrides, add_place, add_weights
from la_det.errors import UserError

# Suffix of the file -> format, as in la_det.export.formats, which takes seconds to import.
FORMATS = {".onnx": "onnx", ".xml": "openvino", ".pt2": "torch-export", ".pt": "torchscript"}
SUFFIXES = ", ".join(f"{suffix} ({name})" for suffix, name in FORMATS.items())
NMS = {
    "none": "no NMS",
    "queries": "the model's own NMS in the graph",
    "graph": "NMS in the graph",
    "outside": "candidates before NMS",
}

EXAMPLES = """
examples:
  any batch and image size: %(prog)s POTO/poto_r18_fpn_shapes_tiny model_final.pth poto.onnx
  fixed, for TensorRT:      %(prog)s CONFIG WEIGHTS poto.onnx --batch-size 1 --image-size 800 1344 --half
  without its NMS:          %(prog)s FCOS/fcos_r50_fpn_3x_ms_coco WEIGHTS fcos.onnx --raw-candidates
  OpenVINO, int8:           %(prog)s CONFIG WEIGHTS poto.xml --int8
  for torch.export.load:    %(prog)s CONFIG WEIGHTS poto.pt2
"""


def add_arguments(parser: ArgumentParser, flags: bool) -> None:
    """The options."""
    add_config(parser, flags)
    add_weights(parser, flags)
    add_place(
        parser, "--output" if flags else None, "output", type=Path, metavar="OUTPUT", help=f"file to write: {SUFFIXES}"
    )
    parser.add_argument("--format", choices=[*FORMATS.values()], help="the format of the file's suffix, to be sure")
    parser.add_argument("--batch-size", type=int, metavar="N", help="fix the number of images (default: any)")
    parser.add_argument(
        "--image-size", type=int, nargs=2, metavar=("H", "W"), help="fix the input's size (default: multiples of 32)"
    )
    parser.add_argument("--half", action="store_true", help="half precision inside; inputs and outputs stay float32")
    parser.add_argument(
        "--raw-candidates", action="store_true", help="one-to-many schemes: write all candidates, leave NMS to you"
    )
    parser.add_argument("--opset", type=int, default=20, metavar="N", help="opset of ONNX, 18 to 20 (default: 20)")
    parser.add_argument("--int8", action="store_true", help="openvino: convolutions in int8, with calibration images")
    parser.add_argument(
        "--calibration", metavar="DATASET", help=f"for --int8 (default: the config's training set): {DATASETS}"
    )
    parser.add_argument("--calibration-images", type=int, default=128, metavar="N", help="(default: %(default)s)")
    add_overrides(parser, flag=flags)


def format_of(output: Path, wanted: str | None) -> str:
    """The format of a file. What reads exported files chooses by the suffix, too.

    Raises:
        UserError: the suffix is of no format, or not of the wanted one.
    """
    found = FORMATS.get(output.suffix)
    if found is None:
        raise UserError(f"{output}: its suffix says in which format it is written; end its name with one of {SUFFIXES}")
    if wanted not in (None, found):
        (suffix,) = (suffix for suffix, name in FORMATS.items() if name == wanted)
        raise UserError(f"{output}: files of the format {wanted} end with {suffix}; change the name, or drop --format")
    return found


def run(args: Namespace) -> None:
    """Export."""
    from la_det.engine.setup import load_config
    from la_det.export.export import export
    from la_det.export.formats import Options

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("la_det").setLevel(logging.INFO)
    if args.batch_size is not None and args.batch_size < 1:
        raise UserError(f"--batch-size {args.batch_size}: at least one image")
    options = Options(
        format=format_of(args.output, args.format),
        batch_size=args.batch_size,
        image_size=tuple(args.image_size) if args.image_size else None,
        half=args.half,
        raw=args.raw_candidates,
        opset=args.opset,
        int8=args.int8,
        calibration=args.calibration,
        calibration_images=args.calibration_images,
    )
    metadata = export(load_config(args.config, args.opts), args.config, args.weights, args.output, options)
    megabytes = args.output.stat().st_size / 1e6
    print(f"{args.output}: {len(metadata.classes)} classes, {NMS[metadata.nms]}, {megabytes:.1f} MB")
