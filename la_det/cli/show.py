"""Show which locations of a data set's images each ground truth gets, and with which weights.

The command writes a figure for each image, and one self-contained page, index.html, where you choose image, ground
truth, level and moment of the training. Images are from the first config's test or training set, without random
augmentation.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from la_det.cli.arguments import CONFIG, DATASETS, add_config, add_overrides, positive, share

EXAMPLES = """
examples, with CONFIG=POTO/poto_r18_fpn_shapes_tiny:
  one scheme:          %(prog)s $CONFIG --weights output/poto/model_final.pth
  over a run:          %(prog)s output/poto/config.yaml --weights output/poto
  two schemes:         %(prog)s $CONFIG --weights output/poto/model_final.pth --versus ATSS/atss_r18_fpn_shapes_tiny
  o2f, early and late: %(prog)s O2F/o2f_r18_fpn_shapes_tiny --weights output/o2f/model_final.pth --progress 0 1
  own data:            %(prog)s $CONFIG --weights FILE --dataset coco:images,train.json

--weights, --versus-weights and --progress may have several values, one for each row of the figure. Options with several
values must have equally many; a single value is used for all rows.
"""


def add_arguments(parser: ArgumentParser, flags: bool) -> None:
    """The options."""
    add_config(parser, flags)
    weights: dict[str, Any] = {"nargs": "+", "default": [], "metavar": "PATH"}
    parser.add_argument("--weights", **weights, help="checkpoints, or output folders of runs (default: random weights)")
    parser.add_argument("--versus", metavar="CONFIG", help=f"a second {CONFIG}, shown beside the first")
    parser.add_argument("--versus-weights", **weights, help="weights for --versus")
    parser.add_argument(
        "--progress",
        nargs="+",
        type=share,
        default=[],
        metavar="SHARE",
        help="share of the training that is done, 0 to 1, for schemes with a schedule (default: the checkpoint's)",
    )
    parser.add_argument(
        "--split", choices=("test", "train"), default="test", help="data set of the images (default: %(default)s)"
    )
    parser.add_argument("--images", nargs="+", default=[], metavar="ID", help="image_id of each image to show")
    parser.add_argument(
        "--num-images", type=positive, default=8, help="evenly spaced images, without --images (default: %(default)s)"
    )
    parser.add_argument("--dataset", metavar="DATASET", help=f"own data; sets the number of classes: {DATASETS}")
    parser.add_argument("--output", type=Path, default=Path("output/assignments"), help="folder (default: %(default)s)")
    add_overrides(parser, flag=True)


def run(args: Namespace) -> None:
    """Draw figures and page."""
    from la_det.visualization.show import main

    main(args)
