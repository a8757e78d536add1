"""The table of published and measured figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from tabulate import tabulate

from la_det.checkpoint.checkpointer import replacing
from la_det.model_zoo.records import Record
from la_det.reproduction.recognise import printable
from la_det.reproduction.rows import Row
from la_det.reproduction.verdict import DIFFERENT, NOISE, NOISY, ROUNDING, SAME, figures

LEGEND = f"""\
Figures are in percent. AP, mask AP and mMR are judged.

- {SAME}: at most {ROUNDING} away.
- {NOISY}: at most as far away as the authors say that trainings differ.
  Where they say nothing: {NOISE["AP"]} AP, {NOISE["mMR"]} mMR.
- {DIFFERENT}: further away.
"""


def table(rows: Iterable[Row], records: Mapping[str, Record]) -> str:
    """A Markdown table with a line per row: config, file, published, measured, difference, verdict."""
    header = ["config", "file", "published", "measured", "difference", "verdict"]
    lines = [[_cell(text) for text in _line(row, records)] for row in rows]
    return tabulate(lines, header, tablefmt="pipe", disable_numparse=True)


def write_table(file: Path, rows: Iterable[Row], records: Mapping[str, Record]) -> None:
    """Write the table and its explanation."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as open_file:
        open_file.write(f"{LEGEND}\n{table(rows, records)}\n".encode())


def list_expected(records: Iterable[Record]) -> str:
    """A table of the configs with published figures: the figures, where files are from, and what they are called."""
    rows = [
        [
            record.name,
            _figures(record.published),
            f"{record.source}" if record.convertible else f"{record.source} (its files cannot be converted)",
            " or ".join(record.official),
        ]
        for record in records
        if record.published
    ]
    return tabulate(
        rows, ["config", "published", "files from", "called there"], tablefmt="plain", disable_numparse=True
    )


def _cell(text: str) -> str:
    """The text as a cell of a Markdown table."""
    # An entity: a backslash would not escape the sign where the text has a backslash before it.
    return printable(text).replace("|", "&#124;")


def _line(row: Row, records: Mapping[str, Record]) -> list[str]:
    """A row's texts, with the metrics that are judged."""
    published = {metric: value for metric, value in row.published.items() if metric in NOISE}
    found = figures(row.results).items()
    measured = {metric: value for metric, value in found if metric in NOISE and value is not None}
    differences = {metric: measured[metric] - value for metric, value in published.items() if metric in measured}
    return [
        row.config or "not known",
        row.file or "trained here",
        _figures(published),
        _figures(measured, ".2f"),
        _figures(differences, "+.2f"),
        row.verdict(records),
    ]


def _figures(figures: Mapping[str, float], form: str = "") -> str:
    """Figures with their metrics; by default with one decimal, or with two if they have more."""
    return ", ".join(
        f"{metric} {value:{form or ('.1f' if value == round(value, 1) else '.2f')}}"
        for metric, value in figures.items()
    )
