#!/usr/bin/env python3
"""Show which locations of a data set's images each ground truth gets, and with which weights.

The tool writes a figure for each image, and one self-contained page, index.html, where you choose image, ground truth,
level and moment of the training. Images are from the first config's test or training set, without random augmentation.
"""

import argparse
from pathlib import Path

from la_det.engine.own_dataset import FORMAT
from la_det.errors import one_line_errors
from la_det.visualization.show import main

EXAMPLES = """
examples, with CONFIG=POTO/poto_r18_fpn_shapes_tiny:
  one scheme:          %(prog)s --config-file $CONFIG --weights output/poto/model_final.pth
  over a run:          %(prog)s --config-file output/poto/config.yaml --weights output/poto
  two schemes:         %(prog)s --config-file $CONFIG --weights output/poto/model_final.pth \\
                           --versus ATSS/atss_r18_fpn_shapes_tiny
  o2f, early and late: %(prog)s --config-file O2F/o2f_r18_fpn_shapes_tiny \\
                           --weights output/o2f/model_final.pth --progress 0 1
  own data:            %(prog)s --config-file $CONFIG --weights FILE --dataset coco:images,train.json

--weights, --versus-weights and --progress may have several values, one for each row of the figure. Options with several
values must have equally many; a single value is used for all rows.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    weights = {"nargs": "+", "default": [], "metavar": "PATH"}
    parser.add_argument("--config-file", required=True, metavar="FILE", help="LazyConfig: file or name")
    parser.add_argument("--versus", metavar="FILE", help="a second config, shown beside the first")
    parser.add_argument("--weights", **weights, help="checkpoints, or output folders of runs (default: random weights)")
    parser.add_argument("--versus-weights", **weights, help="weights for --versus")
    parser.add_argument(
        "--progress",
        nargs="+",
        type=float,
        default=[],
        metavar="SHARE",
        help="share of the training that is done, 0 to 1, for schemes with a schedule (default: the checkpoint's)",
    )
    parser.add_argument(
        "--split", choices=("test", "train"), default="test", help="data set of the images (default: %(default)s)"
    )
    parser.add_argument("--images", nargs="+", default=[], metavar="ID", help="image_id of each image to show")
    parser.add_argument(
        "--num-images", type=int, default=8, help="evenly spaced images, without --images (default: %(default)s)"
    )
    parser.add_argument("--dataset", metavar="DATASET", help=f"own data; sets the number of classes: {FORMAT}")
    parser.add_argument("--output", type=Path, default=Path("output/assignments"), help="folder (default: %(default)s)")
    parser.add_argument(
        "--opts", nargs="+", default=[], metavar="key=value", help="options to change in the config or in both configs"
    )
    return parser


if __name__ == "__main__":
    with one_line_errors():
        main(build_parser().parse_args())
