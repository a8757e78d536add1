"""Finished runs and costs of one data set as rows of figures: mean and spread over seeds."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from la_det.comparison.cost import BASELINES, CostRecord
from la_det.comparison.results import Evaluation, RunRecord, read_record
from la_det.comparison.run import PARTS
from la_det.comparison.schemes import ENDINGS, config_name, scheme_and_data, table_order
from la_det.errors import UserError

# Column -> its metric in each evaluator that has one.
METRICS = {
    "AP": ("bbox/AP", "crowdhuman/AP"),
    "AP without NMS": ("nms_gap/AP_without_nms",),
    "AP with NMS": ("nms_gap/AP_with_nms",),
    "duplicates": ("nms_gap/duplicates",),
    "duplicates without NMS": ("nms_gap/duplicates_without_nms",),
    "AR": ("bbox/AR",),
    "mMR": ("crowdhuman/mMR",),
    "JI": ("crowdhuman/JI",),
    "Recall": ("crowdhuman/Recall",),
}
CROWDED = {"apart": "nms_gap/duplicates_apart", "crowded": "nms_gap/duplicates_crowded"}
PART_COLUMNS = {part: f"AP at {part}/{PARTS}" for part in range(1, PARTS)}


class Figure(NamedTuple):
    """Mean, and the sample standard deviation over seeds (0 for a single seed)."""

    mean: float
    spread: float = 0.0
    seeds: int = 1

    @classmethod
    def of(cls, values: list[float]) -> Figure:
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values))


@dataclass
class Row:
    """A scheme on a data set. Detectron2's models have a cost, but no runs."""

    scheme: str
    runs: list[RunRecord] = field(default_factory=list)
    cost: CostRecord | None = None

    def figures(self) -> dict[str, Figure]:
        """Column -> figure, without figures that are missing in some run."""
        figures = {column: [metric(run.evaluations[-1], column) for run in self.runs] for column in METRICS}
        for part, column in PART_COLUMNS.items():
            figures[column] = [ap for run in self.runs for at, ap in self._aps(run) if at == part]
        figures = {c: Figure.of(v) for c, v in figures.items() if v and len(v) == len(self.runs) and None not in v}
        if self.cost:
            step = self.cost.median("step")
            figures["s/iter"] = Figure(step / 1000)
            if self.scheme not in BASELINES:
                figures["matching %"] = Figure(100 * self.cost.median("matching") / step)
            figures["peak MiB"] = Figure(self.cost.median("peak_mib"))
            figures["M params"] = Figure(self.cost.parameters / 1e6)
        return figures

    def crowding(self) -> dict[str, float]:
        """Key of `CROWDED` -> mean duplicates per image over seeds; empty if a run lacks them."""
        found = {part: [run.evaluations[-1].get(name) for run in self.runs] for part, name in CROWDED.items()}
        if not self.runs or any(None in values for values in found.values()):
            return {}
        return {part: statistics.fmean(values) for part, values in found.items()}

    def ap_over_iterations(self) -> list[tuple[int, float]]:
        """(iteration, mean AP over seeds) for the iterations at which every run was evaluated."""
        aps = defaultdict(list)
        for run in self.runs:
            for evaluation in run.evaluations:
                ap = metric(evaluation, "AP")
                if ap is not None:
                    aps[evaluation["iteration"]].append(ap)
        return [(at, statistics.fmean(values)) for at, values in sorted(aps.items()) if len(values) == len(self.runs)]

    @staticmethod
    def _aps(run: RunRecord) -> list[tuple[int, float | None]]:
        """(number of parts of the training, AP after them) for each evaluation."""
        return [(round(PARTS * e["iteration"] / run.max_iter), metric(e, "AP")) for e in run.evaluations]


def metric(evaluation: Evaluation, column: str) -> float | None:
    """The value of a column of `METRICS` in an evaluation."""
    return next((evaluation[name] for name in METRICS[column] if name in evaluation), None)


def read_rows(results: Path) -> dict[str, list[Row]]:
    """The rows of each data set in `table_order`, Detectron2's models last, from the records in the folder `results`.

    Raises:
        UserError: there are no records, a record is damaged, or records of a data set were not made in one way.
    """
    rows: dict[str, dict[str, Row]] = {data: {} for data in ENDINGS}
    for path in sorted(results.glob("*.json")):
        if path.stem.endswith("_cost"):
            cost = read_record(path, CostRecord)
            rows[cost.data].setdefault(cost.scheme, Row(cost.scheme)).cost = cost
        else:
            run = read_record(path, RunRecord)
            scheme, data = scheme_and_data(run.config)
            rows[data].setdefault(scheme, Row(scheme)).runs.append(run)
    if not any(rows.values()):
        raise UserError(f"{results}: no results; make some with the commands run and cost")
    return {data: _in_order(results, data, found) for data, found in rows.items() if found}


def _in_order(results: Path, data: str, rows: dict[str, Row]) -> list[Row]:
    runs, costs = [run for row in rows.values() for run in row.runs], [row.cost for row in rows.values() if row.cost]
    _check_same(f"{results}: runs on {data}", runs, ("budget", "overrides", "device", "threads"))
    _check_same(f"{results}: costs on {data}", costs, ("overrides", "steps", "device", "threads"))
    ours = sorted(rows.keys() - BASELINES.keys(), key=lambda scheme: table_order(config_name(scheme, data)))
    return [rows[scheme] for scheme in (*ours, *sorted(rows.keys() & BASELINES.keys()))]


def _check_same(what: str, records: Iterable[RunRecord | CostRecord], keys: tuple[str, ...]) -> None:
    for key in keys:
        values = {str(getattr(record, key)) for record in records}
        if len(values) > 1:
            raise UserError(f"{what} differ in {key} ({', '.join(sorted(values))}); keep one kind in a folder")
