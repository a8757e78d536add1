"""List the configs of the model zoo, or show one with its figures and where they are from."""

from __future__ import annotations

import difflib
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING

from la_det.errors import UserError

if TYPE_CHECKING:
    from la_det.model_zoo.records import Record

EXAMPLES = """
examples:
  all configs:        %(prog)s list
  some:               %(prog)s list poto coco
  one with figures:   %(prog)s show POTO/poto_r50_fpn_3x_ms_coco
"""


def add_arguments(parser: ArgumentParser, flags: bool) -> None:
    """The subcommands and their options."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="names of configs")
    listing.add_argument("words", nargs="*", metavar="WORD", help="only names that contain all these words")
    listing.set_defaults(do=print_names)
    show = commands.add_parser("show", help="figures of a config, published and measured here")
    show.add_argument("name", metavar="CONFIG", help="name of a config")
    show.set_defaults(do=lambda args: print(description(args.name)))


def run(args: Namespace) -> None:
    """Do what the subcommand says."""
    args.do(args)


def print_names(args: Namespace) -> None:
    """Print the names that contain all words, one in a line."""
    from la_det import model_zoo

    found = [name for name in model_zoo.list() if all(word.lower() in name.lower() for word in args.words)]
    if not found:
        raise UserError(f"{' '.join(args.words)}: no name of a config contains all these words")
    print("\n".join(found))


def description(name: str) -> str:
    """A config's properties and figures, with their sources and commands."""
    from la_det import model_zoo

    record: Record | None = model_zoo.get_records().get(name)
    if record is None:
        close = difflib.get_close_matches(name, model_zoo.list(), n=1, cutoff=0)[0]
        raise UserError(f"{name}: no config of the model zoo; did you mean {close}?")
    lines = [name + (f" ({record.note})" if record.note else "")]
    lines += [f"  {key}: {value}" for key, value in record.attributes.items()]
    lines.append(f"  published: {_figures(record.published)}" + (f", by {record.source}" if record.source else ""))
    lines.append(f"  measured here: {_figures(record.measured)}")
    training = record.command("AP")
    lines.append(f"  trained by: {training}")
    commands: dict[str, list[str]] = {}
    for metric in record.measured:
        commands.setdefault(record.command(metric), []).append(metric)
    lines += [f"  {', '.join(of)} by: {command}" for command, of in commands.items() if command != training]
    return "\n".join(lines)


def _figures(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{metric} {value:.1f}" for metric, value in figures.items()) or "none"
