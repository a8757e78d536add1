"""Records of all configs: published figures, figures measured here, and their sources.

A project's `zoo.yaml` has one table for each section of its README: `columns`, `common` (entries of all its records)
and `records` by config. A name with a project, "FCOS/fcos_r18_fpn_shapes_tiny", shows another project's record.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml

from la_det.errors import UserError
from la_det.model_zoo import names
from la_det.model_zoo.names import get_config, project_tables

# Properties of configs that tables show.
ATTRIBUTES = frozenset(
    {
        "MS",
        "DCNv2",
        "NMS",
        "assignment",
        "backbone",
        "boxes",
        "centerness",
        "quality",
        "refinement",
        "schedule",
        "second branch",
    }
)


@dataclass(frozen=True)
class Record:
    """A config's figures.

    Attributes:
        name: name in `la_det.model_zoo.list()`.
        published: metric -> the source's figure, in percent.
        measured: metric -> figure measured here, in percent; see `command`.
        source: address of the repository that published the figures.
        official: names of the config in this repository; its files often have them.
        noise: metric -> how much its authors say that the figure varies from training to training, in percent.
        convertible: whether `la-det convert` reads the weights of this repository.
        note: a few words beside the name.
        options: options `key=value` with which the config was measured here.
        attributes: properties of the config, by the names in `ATTRIBUTES`.
    """

    name: str
    published: Mapping[str, float] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)
    source: str | None = None
    official: tuple[str, ...] = ()
    noise: Mapping[str, float] = field(default_factory=dict)
    convertible: bool = True
    note: str | None = None
    options: str | None = None
    attributes: Mapping[str, str | float | bool] = field(default_factory=dict)

    def command(self, metric: str) -> str:
        """The command that measures a metric: a training, or an evaluation of the trained weights."""
        options = f" {self.options}" if self.options else ""
        run, output = f"la-det train {self.name}{options}", f"output/{self.name}"
        evaluate = f"la-det eval {self.name} {output}/model_final.pth{options} --output {output}/eval"
        if metric.endswith((" after a third", " after two thirds")):
            third = get_config(self.name).train.max_iter // 3
            return f"{run} --output {output} train.eval_period={third}"
        if metric.endswith(" with NMS"):
            return f"{evaluate} model.inference.nms_threshold=0.6"
        if metric.endswith(" without NMS"):
            return f"{evaluate} model.inference.nms_threshold=null"
        return f"{run} --output {output}"


@dataclass(frozen=True)
class Table:
    """The table of a section in a README.

    Attributes:
        columns: attributes, "published <metric>" or "measured <metric>".
        records: records of the rows.
    """

    columns: tuple[str, ...]
    records: tuple[Record, ...]


@cache
def get_records() -> dict[str, Record]:
    """All records by the names of their configs.

    Raises:
        ValueError: a `zoo.yaml` has a key that records do not have; the message names file and config.
    """
    return {
        name: record
        for project, tables in project_tables().items()
        for name, record in _records(tables, f"{project}/").items()
    }


def read_records(file: Path) -> dict[str, Record]:
    """The records of a file in the form of `zoo.yaml`, where configs have full names, `POTO/poto_r50_fpn_3x_ms_coco`.

    Raises:
        UserError: the file cannot be read, has another form, or names a config that does not exist; or a figure is no
            finite number.
    """
    try:
        records = _records(yaml.safe_load(file.read_text()))
        for name, record in records.items():
            for metric, value in {**record.published, **record.noise}.items():
                if not is_number(value):
                    raise UserError(f"{file}: {name}: its {metric} is no number: {value}")
    except OSError as error:
        raise UserError(f"{file}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, TypeError, AttributeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: not of the form of projects/*/zoo.yaml ({reason:.200})") from error
    for name in records.keys() - set(names.list()):
        (close,) = difflib.get_close_matches(name, names.list(), n=1, cutoff=0)
        raise UserError(f"{file}: {name} is no config of the model zoo; did you mean {close}?")
    return records


def is_number(value: object) -> bool:
    """Whether a value that was read from a file is a finite number."""
    # The comparison is false for NaN, and exact for whole numbers that no float holds.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _records(tables: Mapping, prefix: str = "") -> dict[str, Record]:
    """The records of a `zoo.yaml` that are its own. `prefix` is put before the names."""
    return {
        f"{prefix}{config}": _record(f"{prefix}{config}", {**table.get("common", {}), **content})
        for table in tables.values()
        for config, content in table["records"].items()
        if not prefix or "/" not in config
    }


def get_tables(project: str) -> dict[str, Table]:
    """The tables of a project's README by the names of their sections."""
    records = get_records()
    return {
        section: Table(
            tuple(table["columns"]),
            tuple(records[config if "/" in config else f"{project}/{config}"] for config in table["records"]),
        )
        for section, table in project_tables()[project].items()
    }


def _record(name: str, content: Mapping) -> Record:
    attributes = {key: value for key, value in content.items() if key in ATTRIBUTES}
    others = {key: value for key, value in content.items() if key not in ATTRIBUTES}
    official = others.pop("official", ())
    try:
        return Record(
            name,
            attributes=attributes,
            official=(official,) if isinstance(official, str) else tuple(official),
            **others,
        )
    except TypeError as error:
        raise ValueError(f"{name}: zoo.yaml has a key that no record has ({error})") from error
