#!/usr/bin/env python
"""Convert weights that an official repository published into a checkpoint of this project.

The tool finds the config by the keys and shapes of the file's parameters. If several configs have the same parameters,
it lists them, and you choose one with --config. Every key must find its place, and every parameter its key. The
converted file also says which settings its weights need in the config; evaluation reads and applies them.
"""

import argparse
from pathlib import Path

from la_det.checkpoint.recipe import SUFFIXES, write_weights
from la_det.conversion.convert import Fit, find_fit
from la_det.conversion.published import FLAG, read_official
from la_det.errors import UserError, one_line_errors

EXAMPLES = """
examples:
  %(prog)s dw_r50.pth dw_r50.safetensors
  %(prog)s poto.pth poto_converted.pth --config POTO/poto_r50_fpn_3x_ms_coco
  tools/train_net.py --config-file projects/POTO/configs/poto_r50_fpn_3x_ms_coco.py --eval-only \\
      train.init_checkpoint=poto_converted.pth
"""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="IN", help="published file (.pth, .pkl)")
    parser.add_argument("target", metavar="OUT", type=Path, help=f"file to write, named {' or '.join(SUFFIXES)}")
    parser.add_argument("--config", metavar="NAME", help="config of the weights, e.g. POTO/poto_r50_fpn_3x_ms_coco")
    parser.add_argument(
        FLAG, action="store_true", help="read pickled objects other than tensors too, which can run any code"
    )
    args = parser.parse_args(argv)
    if args.target.suffix not in SUFFIXES:
        parser.error(f"{args.target}: its name has to end with {' or '.join(SUFFIXES)}")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
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


if __name__ == "__main__":
    main()
