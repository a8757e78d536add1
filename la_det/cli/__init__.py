"""The command `la-det`. The module of a subcommand has its options (`add_arguments`) and its work (`run`).

Only the module of the called subcommand is imported, and it imports torch, Detectron2 and the rest of la_det in `run`.
So help is quick, and `doctor` and `install-detectron2` also work where something is broken or missing.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

import la_det
from la_det.errors import one_line_errors

COMMANDS = {
    "train": "train a config, also on your own data",
    "eval": "evaluate trained weights",
    "detect": "detect objects in images, folders and videos",
    "export": "write a trained detector as one graph: ONNX, OpenVINO, TorchScript or torch.export",
    "convert": "convert weights that an official repository published",
    "reproduce": "compare official weights, or trainings, with the published figures",
    "show": "show which locations of an image each object gets",
    "compare": "train and time schemes under one budget, and make tables of the results",
    "bench": "measure speed and memory",
    "check-data": "check a data set before a training",
    "zoo": "list the configs, and show the figures of one",
    "doctor": "show versions and devices, and what is missing or broken",
    "install-detectron2": "install Detectron2, which the package registry does not have",
}


class Parser(argparse.ArgumentParser):
    """A parser that shows help texts as they are written."""

    def __init__(self, **options: object) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)  # type: ignore[arg-type]

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """The arguments; options may stand between `CONFIG` and `key=value`."""
        if self._subparsers is not None:  # a parser with subcommands cannot intermix
            return self.parse_args(argv)
        return self.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `la-det` and return the exit status: 0, 1 if something was found to be wrong, or 2 for an error.

    Args:
        argv: the arguments. None: those of this process.
    """
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in COMMANDS:
        return run(argv[0], argv[1:])
    commands = "\n".join(f"  {name:<20}{text}" for name, text in COMMANDS.items())
    parser = Parser(
        prog="la-det",
        usage="la-det COMMAND ...",
        description=la_det.__doc__,
        epilog=f"commands:\n{commands}\n\n`la-det COMMAND --help` shows the options of a command, with examples.",
    )
    parser.add_argument("--version", action="version", version=f"la_det {la_det.__version__}")
    parser.add_argument("command", metavar="COMMAND", choices=list(COMMANDS), help="one of the commands below")
    with one_line_errors():
        parser.parse_args(argv or ["--help"])
    return 2


def run(command: str, argv: Sequence[str], tool: str = "") -> int:
    """Run a subcommand and return its exit status.

    Args:
        tool: name of the file in tools/ that was started, whose flags are those of Detectron2's tools.
    """
    with one_line_errors():
        args = build_parser(command, tool).parse(argv)
        return _module(command).run(args) or 0


def build_parser(command: str, tool: str = "") -> Parser:
    """The parser of a subcommand, or of the tool for it."""
    module = _module(command)
    examples = f"`la-det {command} --help` has examples." if tool and module.EXAMPLES else module.EXAMPLES
    parser = Parser(prog=tool or f"la-det {command}", description=module.__doc__, epilog=examples)
    module.add_arguments(parser, bool(tool))
    return parser


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"la_det.cli.{command.replace('-', '_')}")
