"""Arguments that several subcommands share."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path
from typing import Any

CONFIG = "config: name (`la-det zoo list`) or file"
WEIGHTS = "trained weights: file or address"
# What data sets are called, as in la_det.data.sources, and the data of a comparison, as in la_det.comparison.schemes.
# These modules take seconds to import.
DATASETS = "coco:IMAGES,JSON[,IMAGES,JSON...] | yolo:DATA.yaml | voc:DIR[,DIR...] | odgt:IMAGES,ODGT[,IMAGES,ODGT...]"
SHAPES = ("shapes_tiny", "shapes_crowd", "shapes")


def add_place(parser: ArgumentParser, flag: str | None, name: str, **options: Any) -> None:
    """An argument that la-det takes by its place, and a tool by `flag`."""
    if flag is None:
        parser.add_argument(name, **options)
    else:
        parser.add_argument(flag, dest=name, required=True, **options)


def add_config(parser: ArgumentParser, flags: bool) -> None:
    """`config`."""
    add_place(parser, "--config-file" if flags else None, "config", metavar="CONFIG", help=CONFIG)


def add_weights(parser: ArgumentParser, flags: bool) -> None:
    """`weights`."""
    add_place(parser, "--weights" if flags else None, "weights", metavar="WEIGHTS", help=WEIGHTS)


def add_overrides(parser: ArgumentParser, flag: bool = False) -> None:
    """`opts`, after all other places, or by the flag `--opts`."""
    options: dict[str, Any] = {"metavar": "key=value", "help": "options of the config to change"}
    if flag:
        parser.add_argument("--opts", nargs="+", default=[], **options)
    else:
        # Without a default, argparse would name it among the arguments that are required.
        parser.add_argument("opts", nargs="*", default=[], **options)


def add_run(parser: ArgumentParser, flags: bool) -> None:
    """What training and evaluation share: data, output folder, processes, options of the config."""
    parser.add_argument(
        "--dataset",
        metavar="DATASET",
        help=f"own data, for training and evaluation; sets the number of classes (docs/data.md): {DATASETS}",
    )
    if flags:
        parser.set_defaults(output=None)
    else:
        parser.add_argument("--output", type=Path, metavar="DIR", help="output folder (default: train.output_dir)")
    parser.add_argument("--num-gpus", type=int, default=1, help="processes on this machine, each with one GPU (or CPU)")
    parser.add_argument("--num-machines", type=int, default=1, help="machines that take part")
    parser.add_argument("--machine-rank", type=int, default=0, help="number of this machine, from 0")
    parser.add_argument("--dist-url", default="auto", help="where the processes meet: tcp://MACHINE_0:PORT")
    add_overrides(parser)


def positive(text: str) -> int:
    """A type of arguments: a whole number above 0."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise ArgumentTypeError(f"{text} is no whole number above 0")
    return value


def share(text: str) -> float:
    """A type of arguments: a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:  # NaN neither
        raise ArgumentTypeError(f"{text} is no number from 0 to 1")
    return value


def device(text: str) -> str:
    """A type of arguments: the name of a device of torch."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", text):
        raise ArgumentTypeError(f"{text} is neither cpu, cuda nor cuda:NUMBER")
    return text
