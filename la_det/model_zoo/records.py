"""Records of all configs: published figures, figures measured here, and their sources.

A project's `zoo.yaml` has one table for each section of its README: `columns`, `common` (entries of all its records)
and `records` by config. A name with a project, "FCOS/fcos_r18_fpn_shapes_tiny", shows another project's record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

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
        convertible: whether `la-det convert` reads the weights of this repository.
        note: a few words beside the name.
        options: options `key=value` with which the config was measured here.
        attributes: properties of the config, by the names in `ATTRIBUTES`.
    """

    name: str
    published: Mapping[str, float] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)
    source: str | None = None
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
    records = {}
    for project, tables in project_tables().items():
        for table in tables.values():
            for config, content in table["records"].items():
                if "/" not in config:
                    name = f"{project}/{config}"
                    records[name] = _record(name, {**table.get("common", {}), **content})
    return records


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
    try:
        return Record(name, attributes=attributes, **others)
    except TypeError as error:
        raise ValueError(f"{name}: zoo.yaml has a key that no record has ({error})") from error
