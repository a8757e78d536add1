"""Measure speed and memory.

matching: cost of assignment and losses on a scene at real size (two images of 800 x 1333, given prediction maps),
beside the dense forms, with this project's targets for the ratios. Every case has a fresh process. "ops" is the number
of operations that a GPU gets in assignment and losses, forward and backward. "waits" is how often the CPU waits for one
of their results.

official: the same beside the official code, in one process in turn. It takes your checkouts of DeFCN and DW. Neither
cvpods nor MMDetection is needed.

paired: the same beside another checkout of this project, each in a process of its own, call by call in turn.

scaling: growth of the assignment's cost with the number of ground truths and with the size of the image.

train: milliseconds of each part of a training step on Shapes images, beside Detectron2's own RetinaNet with the same
backbone and images in the same run.

inference: milliseconds per image of each part of inference, for several models in turn: eager with and without NMS,
compiled, and in ONNX Runtime. "ratio" is the total divided by that of the first model in the same runtime and round. In
ONNX Runtime, the network's part is the whole graph, with top-k and NMS.

deploy: what trained detectors cost and keep in each runtime: AP, largest differences to the eager model, milliseconds
per image of each part, size of the file, and what NMS costs. What --results has for the same weights is not measured
again, but for times. Without --weights, only the tables are made.

evaluation: images per second of a detector on images of many sizes, in batches that are padded to their largest image,
as in the official code, and in batches of images of one padded size, as la_det evaluates.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from importlib import import_module
from pathlib import Path

from la_det.cli.arguments import SHAPES, device, positive

RUNTIMES = ("eager", "compile", "onnx")
DEPLOY_RUNTIMES = (*RUNTIMES, "openvino", "int8")
DEPLOYED = (
    "FCOS/fcos",
    "POTO/poto",
    "POTO/poto_3dmf",
    "O2F/o2f",
    "DATE/date_f",
    "DW/dw",
    "TOOD/tood",
    "DATE/tal_dual",
)

EXAMPLES = """
examples:
  %(prog)s matching --schemes poto fcos --gts 20 100
  %(prog)s deploy --weights output/compare --page docs/deploy.md
  %(prog)s inference POTO/poto_r18_fpn_shapes_tiny FCOS/fcos_r18_fpn_shapes_tiny --threads 1
"""


def add_arguments(parser: ArgumentParser, flags: bool) -> None:
    """The subcommands, each of a module of `la_det.benchmark`, and their options."""
    commands = parser.add_subparsers(dest="module", required=True)

    matching = commands.add_parser("matching", help="cost of assignment and losses")
    _add_schemes(matching, "default: all")
    _add_ground_truths(matching, [7, 20, 100, 300, 500])
    matching.add_argument("--device", type=device, default="cpu")
    matching.add_argument("--repeats", type=positive, default=9, help="calls whose median counts")
    _add_threads(matching, 1)
    _add_json(matching)

    official = commands.add_parser("official", help="assignment and losses beside the official code")
    official.add_argument("--defcn", type=Path, metavar="DIR", help="checkout of Megvii-BaseDetection/DeFCN")
    official.add_argument("--dw", type=Path, metavar="DIR", help="checkout of strongwolf/DW")
    _add_schemes(official, "default: all of the given checkouts but 'loss', which takes minutes and, at G = 300, 11 GB")
    _add_ground_truths(official, [20, 100, 300])
    official.add_argument("--turns", type=positive, default=9, help="pairs of calls whose median counts")
    _add_threads(official, 1)

    paired = commands.add_parser("paired", help="assignment and losses beside another checkout")
    paired.add_argument("--other", type=Path, required=True, metavar="CHECKOUT", help="folder of the other checkout")
    _add_schemes(paired, "default: all")
    _add_ground_truths(paired, [20, 100, 300])
    paired.add_argument("--call", choices=("assign", "train"), default="train", help="assignment, or all (default)")
    paired.add_argument("--pairs", type=positive, default=20, help="calls of each (default: %(default)s)")
    _add_threads(paired, 1)

    scaling = commands.add_parser("scaling", help="growth of the assignment's cost")
    scaling.add_argument(
        "--gts", nargs="+", type=positive, default=[300, 600, 1000, 2000], help="per image of 800 x 1333"
    )
    scaling.add_argument(
        "--sizes", nargs="+", type=positive, default=[512, 1024, 1448, 2048], help="sides of square images"
    )
    _add_schemes(scaling, "in both tables")
    scaling.add_argument("--device", type=device, default="cpu")
    scaling.add_argument("--repeats", type=positive, default=9, help="calls whose median counts")
    _add_threads(scaling, 1)

    train = commands.add_parser("train", help="parts of a training step")
    train.add_argument("configs", nargs="+", metavar="CONFIG", help="names of `la-det zoo list`")
    train.add_argument("--short-edge", type=positive, default=256, help="short side of the images, pixels")
    train.add_argument("--batch-size", type=positive, default=2)
    train.add_argument("--steps", type=positive, default=10, help="steps whose median counts")
    train.add_argument("--device", type=device, help="default: the GPU if there is one")
    _add_threads(train)
    _add_json(train)

    inference = commands.add_parser("inference", help="parts of inference, with and without NMS")
    inference.add_argument("configs", nargs="+", metavar="CONFIG", help="names of `la-det zoo list`")
    inference.add_argument("--weights", nargs="+", default=[], metavar="CONFIG=FILE", help="trained; random by default")
    inference.add_argument(
        "--candidates", type=positive, default=1000, help="per image, for models with random weights"
    )
    inference.add_argument("--images", choices=SHAPES, default="shapes", help="data set of the images")
    inference.add_argument("--image-size", type=positive, nargs=2, default=(256, 256), metavar=("H", "W"))
    inference.add_argument("--batch-sizes", type=positive, nargs="+", default=[1, 8])
    inference.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=RUNTIMES)
    inference.add_argument("--repeats", type=positive, default=15, help="rounds whose median counts")
    _add_threads(inference)
    _add_json(inference)

    deploy = commands.add_parser("deploy", help="accuracy and speed of trained detectors in each runtime")
    twins = [f"{name}_r18_fpn_shapes_tiny" for name in DEPLOYED]
    deploy.add_argument("configs", nargs="*", default=twins, metavar="CONFIG", help=f"default: {' '.join(twins)}")
    deploy.add_argument(
        "--weights", type=Path, metavar="FOLDER", help="has <config>/ or <config>_seed0/ of each config"
    )
    deploy.add_argument("--results", type=Path, default=Path("docs/deploy"), metavar="DIR", help="JSON (docs/deploy)")
    deploy.add_argument(
        "--output",
        type=Path,
        default=Path("output/deploy"),
        metavar="DIR",
        help="for the exported files (output/deploy)",
    )
    deploy.add_argument("--parts", nargs="+", choices=("accuracy", "times"), default=["accuracy", "times"])
    deploy.add_argument("--runtimes", nargs="+", choices=DEPLOY_RUNTIMES, default=DEPLOY_RUNTIMES)
    deploy.add_argument("--batch-sizes", type=positive, nargs="+", default=[1, 8])
    deploy.add_argument("--calibration-images", type=positive, default=128, help="of int8 (default: %(default)s)")
    deploy.add_argument("--repeats", type=positive, default=15, help="rounds whose median counts")
    deploy.add_argument("--page", type=Path, metavar="FILE", help="Markdown file whose tables are replaced")
    _add_threads(deploy, 1)

    evaluation = commands.add_parser("evaluation", help="batches padded together, and batches of one size")
    evaluation.add_argument("config", metavar="CONFIG", help="name of `la-det zoo list`; the weights are random")
    evaluation.add_argument("--images", type=positive, default=64)
    evaluation.add_argument(
        "--sides", type=positive, nargs=2, default=(160, 320), metavar=("LOW", "HIGH"), help="pixels"
    )
    evaluation.add_argument("--batch-size", type=positive, default=8)
    evaluation.add_argument("--repeats", type=positive, default=7, help="rounds whose median counts")
    _add_threads(evaluation)


def run(args: Namespace) -> None:
    """Measure, and print a table."""
    import_module(f"la_det.benchmark.{args.module}").run(args)


def _add_schemes(parser: ArgumentParser, default: str) -> None:
    parser.add_argument("--schemes", nargs="+", metavar="SCHEME", help=default)


def _add_ground_truths(parser: ArgumentParser, default: list[int]) -> None:
    parser.add_argument("--gts", nargs="+", type=positive, default=default, help="ground truths per image")


def _add_threads(parser: ArgumentParser, default: int | None = None) -> None:
    text = "CPU threads (default: %(default)s)" if default else "CPU threads (default: torch's choice)"
    parser.add_argument("--threads", type=positive, default=default, help=text)


def _add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
