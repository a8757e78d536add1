"""Convert weights that an official repository published into a checkpoint of this project.

The command finds the config by the keys and shapes of the file's parameters. If several configs have the same
parameters, it lists them, and you choose one with --config. Every key must find its place, and every parameter its key.
The converted file also says which settings its weights need in the config; evaluation reads and applies them.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from la_det.errors import UserError

if TYPE_CHECKING:
    from la_det.conversion.convert import Fit

EXAMPLES = """
examples:
  %(prog)s dw_r50.pth dw_r50.safetensors
  %(prog)s poto.pth poto_converted.pth --config POTO/poto_r50_fpn_3x_ms_coco
  la-det eval POTO/poto_r50_fpn_3x_ms_coco poto_converted.pth
"""


def add_arguments(parser: ArgumentParser, flags: bool) -> None:
    """The options."""
    parser.add_argument("source", metavar="IN", help="published file (.pth, .pkl)")
    parser.add_argument("target", metavar="OUT", type=Path, help="file to write, named .safetensors or .pth")
    parser.add_argument("--config", metavar="NAME", help="config of the weights, e.g. POTO/poto_r50_fpn_3x_ms_coco")
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read pickled objects other than tensors too, which can run any code",
    )


def run(args: Namespace) -> None:
    """Convert a file, and say what became of it."""
    from la_det.checkpoint.recipe import SUFFIXES, write_weights
    from la_det.conversion.convert import find_fit
    from la_det.conversion.published import read_official

    if args.target.suffix not in SUFFIXES:
        raise UserError(f"{args.target}: its name has to end with {' or '.join(SUFFIXES)}")
    state = read_official(args.source, args.allow_pickle)
    fit = find_fit(args.source, state, args.config)
    try:
        write_weights(args.target, fit.weights(state), fit.recipe())
    except OSError as error:
        raise UserError(f"{args.target}: {error.strerror or error}") from error
    print_summary(args.target, fit)


def print_summary(target: Path, fit: Fit) -> None:
    """Print the source, the target and the recipe of a conversion."""
    recipe = fit.recipe()
    print(f"{fit.repository.name}: {len(fit.sources)} keys used, {len(fit.dropped)} without use here, none left over")
    print(f"{target}: weights for {fit.config}")
    for key, value in (recipe["network"] | recipe["overrides"]).items():
        print(f"  {key}: {value}")
