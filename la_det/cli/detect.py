"""Detect objects in images, folders and videos.

The output folder gets an annotated picture or video for every input; detections.json, in COCO's result format; and
images.json, a COCO data set without annotations that has the image ids of detections.json. Files that cannot be read,
or whose pictures cannot be written, are named, and what could be detected in them is kept; so are damaged videos. Exit
status: 0 if all files were done, 1 if files are named, 2 if nothing could be done.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from la_det.cli.arguments import CONFIG, WEIGHTS, add_overrides
from la_det.errors import UserError

EXAMPLES = """
examples:
  a folder:   %(prog)s O2F/o2f_r18_fpn_shapes_tiny output/demo/model_final.pth pictures/
  a video:    %(prog)s output/demo/config.yaml output/demo/model_final.pth clip.mp4
  with NMS:   %(prog)s CONFIG WEIGHTS a.jpg b.png --opts model.inference.nms_threshold=0.6
  on the CPU: %(prog)s CONFIG WEIGHTS pictures/ --device cpu
  exported:   %(prog)s --exported poto.onnx pictures/
"""


def add_arguments(parser: ArgumentParser, flags: bool) -> None:
    """The options."""
    if flags:
        parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="image, video, or folder of these")
        parser.add_argument("--config-file", dest="config", metavar="CONFIG", help=CONFIG)
        parser.add_argument("--weights", metavar="FILE", help=WEIGHTS)
    else:
        parser.usage = "la-det detect [options] CONFIG WEIGHTS INPUT [INPUT ...]\n"
        parser.usage += "       la-det detect [options] --exported FILE INPUT [INPUT ...]"
        parser.add_argument(
            "places",
            nargs="+",
            metavar="CONFIG WEIGHTS INPUT",
            help=f"{CONFIG}; {WEIGHTS}; and images, videos or folders of these",
        )
    parser.add_argument(
        "--exported",
        "--onnx",
        metavar="FILE",
        help="instead of config and weights, a file of `la-det export`: .onnx, .xml (OpenVINO), .pt or .pt2",
    )
    parser.add_argument(
        "--allow-code", action="store_true", help="open .pt and .pt2 files, which can run any code: you trust them"
    )
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], help="default: train.device of the config, the CPU for an exported file"
    )
    parser.add_argument("--output", type=Path, default=Path("output/pictures"), metavar="FOLDER")
    parser.add_argument("--min-score", type=float, default=0.3, help="smallest score of a detection")
    parser.add_argument("--batch-size", type=int, default=4, help="images, or pictures of a video, in a batch")
    add_overrides(parser, flag=True)


def run(args: Namespace) -> int:
    """Detect, and return the exit status."""
    from la_det.demo.detect import build_predictor, detect
    from la_det.demo.inputs import find_files
    from la_det.export.exported import ExportedPredictor
    from la_det.predictor import Predictor

    if "places" in args:
        config_and_weights = args.places[: 0 if args.exported else 2]
        args.config, args.weights = config_and_weights if len(config_and_weights) == 2 else (None, None)
        args.inputs = [Path(place) for place in args.places[len(config_and_weights) :]]
    of_config = [args.config, args.weights, args.opts]
    if any(of_config) if args.exported else not all(of_config[:2]):
        raise UserError("give either config and weights, or --exported FILE without --opts")
    if not args.inputs:
        raise UserError("give CONFIG, WEIGHTS and at least one INPUT")
    if args.batch_size < 1:
        raise UserError(f"--batch-size {args.batch_size}: at least one image")
    files = find_files(args.inputs)
    if args.exported:
        predictor: Predictor = ExportedPredictor(args.exported, args.device or "cpu", allow_code=args.allow_code)
    else:
        predictor = build_predictor(args.config, args.weights, args.device, args.opts)
    return detect(predictor, files, args.output, args.min_score, args.batch_size)
