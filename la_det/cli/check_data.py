"""Check a data set before it is trained on, and show how a detector sees it.

The command reads the annotations as training does and says what is wrong with them. It reads the headers of all image
files (size, EXIF orientation, kind of pixels). It counts the objects of each class and of each size and, for each
scheme, the objects that could get no positive even if they were alone in their image. A picture of the counts goes to
the output folder. Exit status: 0 if the data set can be used, 1 if image files are damaged, 2 if it cannot be used.
"""

from __future__ import annotations

import logging
from argparse import ArgumentParser, Namespace
from pathlib import Path

from la_det.cli.arguments import DATASETS, SHAPES, add_place, positive
from la_det.errors import UserError

EXAMPLES = """
examples:
  own data:               %(prog)s coco:images,train.json
  training and test set:  %(prog)s yolo:data.yaml
  a registered data set:  %(prog)s shapes_tiny_train --recipes shapes_tiny
  one scheme:             %(prog)s voc:VOC2012 --configs FCOS/fcos_r50_fpn_3x_ms_coco
  annotations only:       %(prog)s coco:images,train.json --skip-images --recipes none
"""


def add_arguments(parser: ArgumentParser, flags: bool) -> None:
    """The options."""
    add_place(
        parser,
        "--dataset" if flags else None,
        "dataset",
        metavar="DATASET",
        help=f"a registered name, or {DATASETS}",
    )
    configs = "--config-file" if flags else "--configs"
    parser.add_argument(
        configs,
        dest="configs",
        nargs="+",
        default=[],
        metavar="CONFIG",
        help="configs of the schemes: names or files",
    )
    parser.add_argument(
        "--recipes",
        choices=["coco", *SHAPES, "none"],
        default="coco",
        help=f"without {configs}: data of the schemes' recipes, which decide how images are resized "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--objects", type=positive, default=1000, help="evenly spaced objects to look at (default: %(default)s)"
    )
    parser.add_argument("--skip-images", action="store_true", help="do not read the image files")
    parser.add_argument("--output", type=Path, default=Path("output/check_dataset"), metavar="FOLDER")


def run(args: Namespace) -> int:
    """Check, and return the exit status."""
    from la_det.visualization.data_check import check, recipes

    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    if args.objects < 1:
        raise UserError(f"--objects {args.objects}: look at least at one")
    configs = args.configs or recipes(args.recipes)
    usable = check(args.dataset, configs, args.objects, args.output, skip_images=args.skip_images)
    return 0 if usable else 1
