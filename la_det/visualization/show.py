"""The work of `la-det show`, from configs and weights to figures and a page."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from detectron2.config import instantiate
from detectron2.utils.logger import setup_logger

from la_det.config import class_node
from la_det.data.classes import classes_of_data
from la_det.data.records import check_num_classes
from la_det.engine.own_dataset import use_own_dataset
from la_det.engine.setup import load_config
from la_det.errors import UserError
from la_det.visualization.figure import draw
from la_det.visualization.page import render
from la_det.visualization.snapshots import Moment, Panel, Picture, Scheme

logger = logging.getLogger(__name__)

PAGE = "index.html"
DPI = 130  # resolution of the figures
STEM = 60  # characters of a file's name; each may take four of the 255 bytes that file systems allow
T = TypeVar("T")


def main(args: argparse.Namespace) -> None:
    """Draw assignments as the arguments `args` of `la-det show` say."""
    setup_logger(name="la_det")
    files = [args.config, *filter(None, [args.versus])]
    moments = moments_of([args.weights, args.versus_weights][: len(files)], args.progress)
    schemes = build_schemes(files, args)
    dataset = schemes[0].config.dataloader[args.split].dataset
    records = select_records(instantiate(dataset), args.images, args.num_images)
    name = dataset.names if isinstance(dataset.names, str) else dataset.names[0]
    for scheme in schemes:
        check_num_classes(name, class_node(scheme.config.model).num_classes)
    pictures = pictures_of(schemes, records, classes_of_data(name).names)
    rows = panels_of(schemes, moments, records)

    args.output.mkdir(parents=True, exist_ok=True)
    for index, (picture, stem) in enumerate(zip(pictures, file_stems([p.name for p in pictures]), strict=True)):
        draw(picture, index, rows).savefig(args.output / f"{stem}.png", dpi=DPI, bbox_inches="tight")
    untrained = [scheme.name for scheme, of in zip(schemes, moments, strict=True) if of[0].weights is None]
    note = f"Random weights in {' and '.join(untrained)}: only what is decided by geometry means something."
    (args.output / PAGE).write_text(render(name, pictures, rows, note if untrained else ""), encoding="utf-8")
    logger.info("%d figures and %s are in %s", len(pictures), PAGE, args.output)


def file_stems(names: Sequence[str]) -> list[str]:
    """A name of its own for the file of each image: the image's name where it can be one."""
    stems = [name.replace("/", "_")[:STEM] for name in names]
    return stems if len(set(stems)) == len(stems) else [f"{index}_{stem}" for index, stem in enumerate(stems)]


def moments_of(weights: Sequence[Sequence[str]], progress: Sequence[float]) -> list[list[Moment]]:
    """Moments of each scheme, as many as the longest list has values; a single value is used for all moments.

    Args:
        weights: for each scheme, checkpoints and folders of runs.
        progress: shares of the training that are done, the same for all schemes.
    """
    checkpoints = [checkpoints_of(of) or [None] for of in weights]
    count = max(map(len, [*checkpoints, progress]))
    shares = _broadcast(progress or [None], count, "--progress")
    options = ("--weights", "--versus-weights")
    files = [_broadcast(of, count, option) for of, option in zip(checkpoints, options, strict=False)]
    return [[Moment(*pair) for pair in zip(of, shares, strict=True)] for of in files]


def checkpoints_of(paths: Sequence[str]) -> list[str]:
    """The files among the paths, and the checkpoints of the folders in their order."""
    found = []
    for path in paths:
        inside = sorted(map(str, Path(path).glob("model_*.pth")))
        if not inside and Path(path).is_dir():
            raise UserError(f"{path}: this folder has no checkpoints (model_*.pth); give the output folder of a run")
        found += inside or [path]
    return found


def _broadcast(values: Sequence[T], count: int, option: str) -> list[T]:
    if len(values) not in (1, count):
        raise UserError(f"{option} has {len(values)} values and another option {count}; give one, or as many")
    return list(values) * (count // len(values))


def build_schemes(config_files: Sequence[str], args: argparse.Namespace) -> list[Scheme]:
    """The schemes, all with the test augmentations of the first config."""
    configs = [load_config(file, args.opts) for file in config_files]
    for config in configs if args.dataset else ():
        use_own_dataset(config, args.dataset)
    augmentations = configs[0].dataloader.test.mapper.augmentations
    return [
        Scheme(scheme_name(Path(file)), config, augmentations)
        for file, config in zip(config_files, configs, strict=True)
    ]


def scheme_name(config_file: Path) -> str:
    """The config's name; for the config.yaml of a run, the name of the run's folder."""
    return config_file.absolute().parent.name if config_file.name == "config.yaml" else config_file.stem


def select_records(records: Sequence[dict], image_ids: Sequence[str], count: int) -> list[dict]:
    """The annotated records of these images; without `image_ids`, `count` evenly spaced records."""
    if "annotations" not in records[0]:
        raise UserError(f"{records[0]['file_name']}: the data set has no annotations; choose an annotated one")
    if count < 1:
        raise UserError(f"--num-images {count}: show at least one")
    if not image_ids:
        return [records[i] for i in np.linspace(0, len(records) - 1, min(count, len(records))).astype(int)]
    by_id = {str(record["image_id"]): record for record in records}
    for image_id in image_ids:
        if image_id not in by_id:
            raise UserError(f"--images {image_id}: the data set has no such image_id; its first is {next(iter(by_id))}")
    return [by_id[image_id] for image_id in image_ids]


def pictures_of(schemes: Sequence[Scheme], records: Sequence[dict], class_names: Sequence[str]) -> list[Picture]:
    """The images, after checking that all schemes see the same ground truths."""
    first, *others = ([scheme.picture(record, class_names) for record in records] for scheme in schemes)
    for pictures in others:
        for a, b in zip(first, pictures, strict=True):
            if not np.array_equal(a.boxes, b.boxes):
                raise UserError(f"image {a.name}: the two configs' mappers keep different ground truths")
    return first


def panels_of(
    schemes: Sequence[Scheme], moments: Sequence[Sequence[Moment]], records: Sequence[dict]
) -> list[list[Panel]]:
    """For each moment, the panels of all schemes and criteria."""
    columns = []
    for scheme, of in zip(schemes, moments, strict=True):
        found = {moment: scheme.panels(records, moment) for moment in dict.fromkeys(of)}
        columns.append([found[moment] for moment in of])
    return [sum(row, []) for row in zip(*columns, strict=True)]
