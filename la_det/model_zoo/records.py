"""What is known of each config: published figures, figures measured here, and where they come from.

A project's `zoo.yaml` has one table for each section of its README: `columns`, `common` (what its records share) and
`records` by config. A name with a project, "FCOS/fcos_r18_fpn_shapes_tiny", shows another project's record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from la_det.model_zoo.configs import get_config, project_tables

# What a config is, as far as tables show it.
ATTRIBUTES = frozenset(
    {"MS", "DCNv2", "NMS", "assignment", "backbone", "centerness", "quality", "refinement", "schedule", "second branch"}
)


@dataclass(frozen=True)
class Record:
    """A config's figures.

    Attributes:
        name: as in `la_det.model_zoo.list()`.
        published: metric -> the source's figure, in percent.
        measured: metric -> what was measured here, in percent; see `command`.
        source: address of the repository that published the figures.
        convertible: whether tools/convert_checkpoint.py reads the weights published there.
        note: a few words beside the name.
        options: of the config, `key=value`, with which it was measured here.
        attributes: what the config is, by the names in `ATTRIBUTES`.
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
        """The command that measures a metric: a training, or an evaluation of what it trained."""
        run, output = f"tools/train_net.py --config-file {self.name}", f"output/{self.name}"
        if self.options:
            run += f" {self.options}"
        evaluate = f"{run} --eval-only train.init_checkpoint={output}/model_final.pth train.output_dir={output}/eval"
        if metric.endswith((" after a third", " after two thirds")):
            third = get_config(self.name).train.max_iter // 3
            return f"{run} train.output_dir={output} train.eval_period={third}"
        if metric.endswith(" with NMS"):
            return f"{evaluate} model.inference.nms_threshold=0.6"
        if metric.endswith(" without NMS"):
            return f"{evaluate} model.inference.nms_threshold=null"
        return f"{run} train.output_dir={output}"


@dataclass(frozen=True)
class Table:
    """Records of a section in a README.

    Attributes:
        columns: attributes, or "published <metric>" or "measured <metric>".
        records: its rows.
    """

    columns: tuple[str, ...]
    records: tuple[Record, ...]


@cache
def get_records() -> dict[str, Record]:
    """All records by the names of their configs.

    Raises:
        ValueError: a `zoo.yaml` has a key that no record has; names file and config.
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
