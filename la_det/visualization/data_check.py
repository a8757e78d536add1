"""The work of `la-det check-data`, from a data set to tables of its problems and objects."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from tabulate import tabulate

from la_det import model_zoo
from la_det.comparison.schemes import ENDINGS, SCHEMES
from la_det.config import class_node
from la_det.data.records import summary
from la_det.data.sources import is_source, labels_of, parse, read_source, train_and_test
from la_det.data.table import Records
from la_det.engine.setup import load_config
from la_det.errors import UserError
from la_det.visualization.data_report import (
    LEVELS,
    SIZE_BOUNDS,
    SIZES,
    Headers,
    NetworkBoxes,
    draw,
    level_of,
    network_boxes,
    read_headers,
    size_bounds,
    without_positive,
)
from la_det.visualization.show import scheme_name

NAMED = 5  # number of wrong image files that are named


def check(dataset: str, configs: list[str], count: int, output: Path, *, skip_images: bool = False) -> bool:
    """Print what is wrong with a data set and how detectors see it, and write pictures of the counts.

    Args:
        dataset: a registered name, or one of the forms of `la_det.data.sources`.
        configs: configs of the schemes: files or names.
        count: number of evenly spaced objects to look at.
        output: folder of the pictures.
        skip_images: leave the image files unread.

    Returns:
        Whether all image files that were read can be used.

    Raises:
        UserError: the data set cannot be used.
    """
    damaged = False
    names = names_of(dataset)
    for name, label in zip(names, labels_of(names), strict=True):
        records = read_source(name)
        if not isinstance(records, Records):
            raise UserError(f"{name}: its records come from a function of others; only files can be checked")
        if records.annotated:
            records.require_objects()
        print(f"\n{label}: {records.source}\n")
        print(problems(records))
        if records.annotated:
            print(summary(records, records.classes) + "\n")
        if not skip_images:
            headers = read_headers(records)
            damaged = damaged or bool(headers.unreadable)
            print(images(headers) + "\n")
        if configs and records.annotated:
            print(report(configs, records, count, output / f"{label}.png"))
    return not damaged


def names_of(dataset: str) -> list[str]:
    """Names of all data sets that an option lists, for training and test, without repetition."""
    if not is_source(dataset):
        return [dataset]
    if any(source.splits() for source in parse(dataset)):
        train, tests = train_and_test(dataset)
        return list(dict.fromkeys(map(str, (train, *tests))))
    return list(dict.fromkeys(map(str, parse(dataset))))


def recipes(data: str) -> list[str]:
    """Names of the schemes' configs for a kind of data."""
    if data == "none":
        return []
    ending = "_r50_fpn_.*coco" if data == "coco" else re.escape(ENDINGS[data])
    found = ([c for c in model_zoo.list() if re.search(f"/{scheme}{ending}$", c)] for scheme in SCHEMES)
    return [names[0] for names in found if names]


def problems(records: Records) -> str:
    """The problems found in the annotations."""
    found = records.problems.found
    return "\n".join(f"- {problem}" for problem in found) + "\n" if found else "annotations: nothing is wrong\n"


def images(headers: Headers) -> str:
    """Kinds and problems of the image files."""
    kinds = ", ".join(f"{count} {mode}" for mode, count in headers.modes.most_common())
    lines = [f"image files: {kinds or 'none that can be read'}"]
    if headers.turned:
        lines.append(f"{headers.turned} are turned as their EXIF orientation says")
    if headers.animated:
        lines.append(f"{headers.animated} hold several pictures, of which the first counts")
    if headers.unreadable:
        lines.append(f"{len(headers.unreadable)} cannot be used:")
        lines += [f"- {reason}" for reason in headers.unreadable[:NAMED]]
    return "\n".join(lines)


def report(names: list[str], records: Records, count: int, picture: Path) -> str:
    """Tables of levels and schemes, and the path of the picture.

    Sizes and levels are those of the first config with size ranges, else those of the first config and FCOS's paper.
    """
    configs, titles = {name: load_config(name) for name in names}, titles_of(names)
    objects, lacking = {}, {}
    for name, config in track(configs.items(), "schemes", console=Console(stderr=True)):
        class_node(config.model).num_classes = len(records.classes)
        objects[name] = network_boxes(config, records, count)
        for criterion, flags in without_positive(config, objects[name]).items():
            lacking[f"{titles[name]}: {criterion}"] = flags
    sized = next((name for name, config in configs.items() if size_bounds(config)), names[0])
    boxes = objects[sized].boxes
    levels = level_of(boxes, size_bounds(configs[sized]) or SIZE_BOUNDS)
    objects_of_class = np.bincount(records.labels[~records.crowd], minlength=len(records.classes))
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure = draw(records.classes, objects_of_class, boxes, levels, lacking)
    figure.savefig(picture, dpi=80, metadata={"Software": None})
    looked = f"looked at {len(levels)} of {int((~records.crowd).sum())} objects; sizes and levels are those of "
    tables = (levels_table(objects[sized], levels), schemes_table(objects[sized], lacking))
    return "\n\n".join([looked + titles[sized], *tables, f"picture: {picture}"])


def titles_of(configs: list[str]) -> dict[str, str]:
    """Config -> a name of its own that is as short as possible."""
    for title in (scheme_of, run_or_name, str):
        titles = {config: title(config) for config in configs}
        if len(set(titles.values())) == len(titles):
            break
    return titles


def scheme_of(config: str) -> str:
    """A config's name up to its backbone."""
    return re.split(r"_r\d+_", Path(config).stem)[0]


def run_or_name(config: str) -> str:
    """A config's name; for the config.yaml of a run, the name of the run's folder."""
    return scheme_name(Path(config))


def levels_table(objects: NetworkBoxes, levels: np.ndarray) -> str:
    """Table of the number of objects on each level, and their size in the network's input."""
    longer = (objects.boxes[:, 2:] - objects.boxes[:, :2]).max(axis=1)
    rows = []
    for i, name in enumerate(LEVELS):
        of = longer[levels == i]
        quantiles = [f"{x:.0f}" for x in np.quantile(of, (0, 0.5, 1))] if len(of) else ["", "", ""]
        rows.append([name, len(of), *quantiles])
    header = ["level", "objects", "longer side, least", "median", "most"]
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=[2, 3, 4])


def schemes_table(objects: NetworkBoxes, lacking: dict[str, np.ndarray]) -> str:
    """Table of the objects that could get no positive, by COCO's sizes."""
    bounds = list(SIZES.values())
    size = np.searchsorted(bounds, objects.sides)
    rows = [
        [
            name,
            int(flags.sum()),
            *(f"{int(flags[size == i].sum())} of {int((size == i).sum())}" for i in range(len(SIZES))),
        ]
        for name, flags in lacking.items()
    ]
    return tabulate(rows, ["scheme", "objects without positive", *SIZES], tablefmt="pipe")
