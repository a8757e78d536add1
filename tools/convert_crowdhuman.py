#!/usr/bin/env python3
"""Convert CrowdHuman annotations from odgt to the COCO JSON that o2f and DATE use, or back.

The direction follows from the names: *.odgt to *.json, or *.json to *.odgt. COCO JSON holds neither head boxes nor the
reason why a box is ignored ("iscrowd": 1). So the way back writes the tag "mask" for all ignored boxes.
"""

import _start as _start

import argparse
import json
from pathlib import Path

from la_det.data.crowdhuman_coco import coco_to_odgt, odgt_to_coco
from la_det.data.odgt import read_odgt
from la_det.errors import UserError, one_line_errors


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="annotation file to read")
    parser.add_argument("target", type=Path, help="annotation file to write")
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder of the images, from which sizes are read that the odgt file lacks",
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave damaged lines of the odgt file out, and count them"
    )
    args = parser.parse_args(argv)
    if {args.source.suffix, args.target.suffix} != {".odgt", ".json"}:
        parser.error("one of the two files must be named *.odgt and the other *.json")
    return args


def convert(args: argparse.Namespace) -> str:
    """The text of the target file."""
    if args.source.suffix == ".odgt":
        return json.dumps(odgt_to_coco(read_odgt(args.source, args.images, args.skip_bad)))
    try:
        records = list(coco_to_odgt(json.loads(args.source.read_bytes())))
    except (ValueError, KeyError, TypeError, UserError) as error:
        raise UserError(f"{args.source} cannot be converted: {type(error).__name__}: {error}") from error
    return "".join(json.dumps(record) + "\n" for record in records)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        try:
            args.target.write_text(convert(args), encoding="utf-8")
        except OSError as error:
            raise UserError(f"{error.filename}: {error.strerror}") from error


if __name__ == "__main__":
    main()
