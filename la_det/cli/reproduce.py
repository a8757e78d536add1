"""Compare files that official repositories published, or trainings, with the published figures.

The command recognises each file by its parameters and, where several configs have them, by its name. It converts and
evaluates the file with the recipe's settings, and writes one table: published, measured, difference, verdict. A file
that cannot be used becomes a line with the reason. --train trains the configs instead.

Data are looked for in $DETECTRON2_DATASETS: COCO in coco/, CrowdHuman in CrowdHuman/ (docs/reproduce.md). Each measured
row leaves a record in rows/ of the output folder. After a stop, give the same command again. The exit status is 0 if
all rows are as published or within noise, and 1 if not.
"""

from __future__ import annotations

import difflib
import logging
import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from la_det.cli.arguments import DATASETS, add_overrides, positive
from la_det.errors import UserError

if TYPE_CHECKING:
    from la_det.model_zoo.records import Record
    from la_det.reproduction.rows import Reproduction, Row

EXAMPLES = """
examples:
  what is expected:  %(prog)s --list
  downloaded files:  %(prog)s downloads/
  which config:      %(prog)s downloads/ --config POTO/poto_r50_fpn_3x_ms_coco=downloads/model_final.pth
  train instead:     %(prog)s --train --only poto crowdhuman
  on one GPU:        %(prog)s --train --only poto_r50_fpn_3x --num-gpus 1 --opts \\
                         dataloader.train.total_batch_size=2 train.auto_scale_lr.enabled=True
  other data:        %(prog)s downloads/ --records expected.yaml --dataset coco:val_images,val.json
"""


def add_arguments(parser: ArgumentParser, flags: bool) -> None:
    """The options."""
    parser.add_argument("places", nargs="*", type=Path, metavar="FILES", help="published files, and folders of them")
    work = parser.add_mutually_exclusive_group()
    work.add_argument("--train", action="store_true", help="train the configs, and evaluate the results")
    work.add_argument("--list", action="store_true", help="show the published figures and where their files are from")
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="config of a file, if the file's name does not tell it; may be repeated",
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="WORD", help="only configs with all these words in the name"
    )
    parser.add_argument(
        "--records",
        type=Path,
        metavar="YAML",
        help="expected figures, instead of projects/*/zoo.yaml; in the same form, with full names of configs",
    )
    parser.add_argument("--dataset", metavar="DATASET", help=f"other data than the configs' (docs/data.md): {DATASETS}")
    parser.add_argument(
        "--output", type=Path, default=Path("output/reproduce"), metavar="DIR", help="output folder (%(default)s)"
    )
    parser.add_argument(
        "--num-gpus", type=positive, metavar="N", help="processes, each with a GPU (default: all; 1 on a CPU)"
    )
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read pickled objects other than tensors too, which can run any code",
    )
    add_overrides(parser, flag=True)


def run(args: Namespace) -> int:
    """Measure the rows, and return whether they are as published."""
    from la_det.reproduction.table import list_expected

    records = read_records(args)
    if args.list:
        print(list_expected(records.values()))
        return 0
    if args.train == bool(args.places):
        raise UserError("reproduce: name files or folders with published files, or give --train without them")
    return reproduce(args, records)


def read_records(args: Namespace) -> Mapping[str, Record]:
    """The records that the arguments select."""
    from la_det import model_zoo
    from la_det.model_zoo import records

    found = records.read_records(args.records) if args.records else model_zoo.get_records()
    found = {name: record for name, record in found.items() if all(word.lower() in name.lower() for word in args.only)}
    if not any(record.published for record in found.values()):
        raise UserError(f"{' '.join(args.only) or args.records}: no config with published figures; see --list")
    return found


def reproduce(args: Namespace, records: Mapping[str, Record]) -> int:
    """Measure all rows, and write and print the table.

    Raises:
        UserError: no row has the data that it needs.
    """
    import torch
    from detectron2.utils.logger import setup_logger

    from la_det.reproduction.rows import Reproduction, Settings, all_reproduced
    from la_det.reproduction.table import table, write_table

    setup_logger(name="la_det")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no command is left behind
    num_gpus = args.num_gpus or torch.cuda.device_count() or 1
    reproduction = Reproduction(records, args.output, Settings(args.dataset, tuple(args.opts)), num_gpus)
    rows = rows_of_trainings(args, reproduction) if args.train else rows_of_files(args, reproduction)
    if reproduction.lacks_data(rows):
        raise UserError(" | ".join(dict.fromkeys(row.problem for row in rows)))
    rows = reproduction.measure(rows)
    write_table(args.output / "table.md", rows, records)
    print(table(rows, records))
    return 0 if all_reproduced(rows, records) else 1


def rows_of_trainings(args: Namespace, reproduction: Reproduction) -> list[Row]:
    """A row for each config with published figures that can be measured.

    Raises:
        UserError: there is no such config.
    """
    from la_det.reproduction.verdict import expected

    rows = [reproduction.of_training(name) for name, record in reproduction.records.items() if expected(record)]
    if not rows:
        raise UserError(
            f"{' '.join(args.only) or args.records}: the published figures are of another repository's training or of "
            "COCO's server; choose other configs with --only, or give published files in place of --train"
        )
    return rows


def rows_of_files(args: Namespace, reproduction: Reproduction) -> list[Row]:
    """A row for each file, recognised and converted."""
    from la_det.reproduction.recognise import official_files

    files = official_files(args.places, args.output)
    chosen = chosen_configs(args.config, files, reproduction.records)
    rows = []
    for number, (name, path) in enumerate(files.items(), start=1):
        row = reproduction.of_file(name, path, chosen.get(path), args.allow_pickle)
        rows.append(row)
        what = row.problem or f"{row.config}, by {row.by}{', measured before' if row.results else ''}"
        logging.getLogger(__name__).info("file %d of %d, %s: %s", number, len(files), name, what)
    return rows


def chosen_configs(options: list[str], files: Mapping[str, Path], records: Mapping[str, Record]) -> dict[Path, str]:
    """File -> config, from the options `NAME=FILE`; FILE is a path, or a name as the table shows it.

    Raises:
        UserError: there is no such config or file, or a file has two configs.
    """
    targets = {os.path.realpath(path): path for path in files.values()}
    chosen: dict[Path, str] = {}
    for option in options:
        config, _, file = option.partition("=")
        if config not in records:
            (close,) = difflib.get_close_matches(config, records, n=1, cutoff=0)
            raise UserError(f"--config {option}: no config {config}; did you mean {close}?")
        path = files.get(file) or targets.get(os.path.realpath(file))
        if path is None:
            raise UserError(f"--config {option}: {file or 'FILE'} is none of the files; it has the form NAME=FILE")
        if chosen.setdefault(path, config) != config:
            raise UserError(f"--config {option}: {chosen[path]} is given for this file, too; choose one of them")
    return chosen
