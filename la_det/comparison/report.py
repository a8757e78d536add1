"""The comparison as a Markdown document with its tables (also as CSV) and plots."""

from __future__ import annotations

import csv
import os
import re
import shlex
import statistics
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from scipy import stats
from tabulate import tabulate

from la_det.comparison import RESULTS
from la_det.comparison.cost import BASELINES
from la_det.comparison.plots import draw
from la_det.comparison.ratios import CONFIDENCE, Ratios
from la_det.comparison.schemes import SCHEMES
from la_det.comparison.summary import METRICS, PART_COLUMNS, Figure, Row, metric, read_rows
from la_det.errors import UserError

COLUMNS = (*METRICS, *PART_COLUMNS.values(), "s/iter", "matching %", "peak MiB", "M params")
QUOTE = re.compile(r"\{(?P<data>\w+)\[(?P<key>[^\]]+)\]\}")
EXTREMES = {"highest": max, "lowest": min}
DECIMALS = {"duplicates": 2, "duplicates without NMS": 2, "s/iter": 3, "peak MiB": 0, "M params": 2}  # 1 by default

TITLE = "# Comparison"
INTRODUCTION = """
Schemes under one budget: the same data, backbone, schedule and seeds. Made by `{command}` from the JSON files
in [{folder}]({folder}).

"AP" and "duplicates" (per image) are those of the detector with the NMS of its config, or without NMS if it has none.
The columns "without NMS" and "with NMS" are from the same inference pass and the same candidates. With several seeds,
figures are mean ± sample standard deviation.
"""
COST_NOTE = """
Costs are costs of a training step. They were measured apart from the trainings, as medians over interleaved rounds.
"matching %" is the assignment's share of the step, and "peak MiB" the memory beyond that of the model before the first
step.
"""
BASELINE_NOTE = """
Detectron2's own models have the same backbone, a head of the same size, and the same data without images that have no
objects: on such images, Detectron2's FCOS fails.
"""


def write_report(results: Path) -> Path:
    """Write `<results>.md`, and CSV tables and plots into the folder `results`. Return the document's path.

    A `notes.md` in the folder, about what the figures say, becomes the document's first section, by `with_figures`. Its
    first line can be a title of the document.

    Raises:
        UserError: see `read_rows` and `with_figures`.
    """
    data_rows, notes = read_rows(results), results / "notes.md"
    place = Path(os.path.relpath(results)) if results.resolve().is_relative_to(Path.cwd()) else results
    folder = "" if place == RESULTS else f" --results {shlex.quote(str(place))}"
    every_row = [row for rows in data_rows.values() for row in rows]
    introduction = INTRODUCTION.format(folder=results.name, command=f"la-det compare report{folder}")
    introduction += COST_NOTE if any(row.cost for row in every_row) else ""
    introduction += BASELINE_NOTE if any(row.scheme in BASELINES for row in every_row) else ""
    title, text = TITLE, ""
    if notes.exists():
        text = with_figures(notes, {data: Quotes(rows) for data, rows in data_rows.items()})
        if text.startswith("# "):
            title, _, text = text.partition("\n")
    sections = [title + "\n" + introduction, *filter(None, [text.lstrip("\n")])]
    for data, rows in data_rows.items():
        header, lines = table(rows)
        _write_csv(results / f"{data}.csv", header, lines)
        sections += [
            f"## {data}\n",
            _conditions(rows),
            _markdown(header, lines),
            separation(rows),
            *(
                f"![{path.stem}]({results.name}/{path.name})\n\n{caption}\n"
                for path, caption in draw(rows, results, data)
            ),
            "<!-- not run: trains for hours -->\n```bash\n"
            + "\n".join(line + folder for line in commands(data, rows))
            + "\n```\n",
        ]
    document = results.with_name(f"{results.name}.md")
    document.write_text("\n".join(sections))
    return document


def with_figures(notes: Path, data: Mapping[str, Quotes]) -> str:
    """The notes with each `{DATA[KEY]}` replaced by a figure of the records; `Quotes` has the keys.

    Raises:
        UserError: there is no such figure, or the notes have other braces.
    """

    def figure(place: re.Match) -> str:
        try:
            return data[place["data"]][place["key"]]
        except KeyError as error:
            raise UserError(f"{notes}: {place[0]} is not in the records") from error

    text = QUOTE.sub(figure, notes.read_text())
    if brace := re.search(r"[{}].*", text):
        raise UserError(f"{notes}: {brace[0]} is not of the form {{DATA[KEY]}}; braces are for figures only")
    return text


class Quotes:
    """Figures of a data set's rows as text, to be named in notes."""

    def __init__(self, rows: list[Row]) -> None:
        self.figures = {row.scheme: row.figures() for row in rows}
        self.gains = {row.scheme: gains for row in rows if (gains := nms_gains(row))}
        self.ratios = Ratios.of_rows(rows)

    def __getitem__(self, key: str) -> str:
        """A figure by what it is called in the notes.

        - "poto AP" is a cell of the table. "highest AP" and "lowest AP" are the scheme and its cell.
        - "dw / poto" is the ratio of AP with its interval, and "dw / poto alone" that by the noise of these two alone.
        - "dw > poto" is whether the ratio is larger than 1 beyond noise.
        - "poto NMS gain" is what NMS adds to the AP, with its interval over the seeds.
        - "spread of poto" is its spread over the seeds in percent, "chance of spreads" Bartlett's p.

        Raises:
            KeyError: there is none.
        """
        first, sign, second = key.partition(" / ") if " / " in key else key.partition(" > ")
        if sign:
            return self._ratio(first, sign, second)
        if key == "chance of spreads":
            return f"{self.ratios.chance_of_spreads:.2f}"
        if key.startswith("spread of "):
            return f"{100 * self.ratios.spreads[key.removeprefix('spread of ')]:.1f}"
        scheme, _, column = key.partition(" ")
        if column == "NMS gain":
            return _interval(self.gains[scheme])
        if scheme in EXTREMES:
            found = {name: figures[column] for name, figures in self.figures.items() if column in figures}
            scheme = EXTREMES[scheme](found, key=lambda name: found[name].mean, default="")
            return f"{scheme} ({_text(column, found[scheme])})"
        return _text(column, self.figures[scheme][column])

    def _ratio(self, first: str, sign: str, second: str) -> str:
        other, _, alone = second.partition(" ")
        if alone not in ("", "alone"):
            raise KeyError(second)
        ratio = self.ratios.alone(first, other) if alone else self.ratios.between(first, other)
        if ratio is None:
            raise KeyError(first, second)
        if sign == " / ":
            return str(ratio)
        if ratio.is_noise:
            return "cannot be told"
        return "yes" if ratio.mean > 1 else "no"


def table(rows: list[Row]) -> tuple[list[str], list[tuple[Row, list[Figure | None]]]]:
    """The columns that have a figure, and the figures of each row."""
    figures = [row.figures() for row in rows]
    header = [column for column in COLUMNS if any(column in found for found in figures)]
    return header, [(row, [found.get(c) for c in header]) for row, found in zip(rows, figures, strict=True)]


def separation(rows: list[Row]) -> str:
    """Section on the ratios of AP that are further from 1 than noise."""
    ratios = Ratios.of_rows(rows)
    noise, others = ratios.noise, ratios.noise_of_other_seeds
    if noise is None or others is None:
        return "With one seed per scheme, nothing is known about the noise of these AP.\n"
    most = max(len(row.runs) for row in rows)
    several, one = (f"{noise.factor(2 / number):.2f}" for number in (most, 1))
    text = (
        f"Beside its scheme and its seed, chance changes the AP of a run by {100 * noise.spread:.1f} %. This is the "
        f"standard deviation in\nschemes with several seeds, with {noise.degrees} degrees of freedom. Without equal "
        f"seeds, it would be {100 * others.spread:.1f} %. Two schemes can be\ntold apart ({CONFIDENCE:.0%}) if one has "
        f"more than {several} times the AP of the other with {most} seeds each, or more than {one}\ntimes with one "
        "seed each.\n"
    )
    spreads = list(ratios.spreads.items())
    if len(spreads) > 1:
        (steady, least), *_, (unsteady, most_spread) = spreads
        text += (
            f"\nThe AP of single schemes vary over their seeds by {100 * least:.1f} % ({steady}) to "
            f"{100 * most_spread:.1f} % ({unsteady}). Spreads that differ\nas much arise by chance with probability "
            f"{ratios.chance_of_spreads:.2f} (Bartlett's test), so one noise is used for all. If some schemes do\n"
            "vary more than others, their intervals are too narrow.\n"
        )
    names = ratios.best_first
    lines = [[name, ", ".join(ratios.not_told_apart(name)) or "none"] for name in names]
    return text + "\n" + tabulate(lines, ["scheme, best first", "cannot be told apart from"], tablefmt="github") + "\n"


def commands(data: str, rows: list[Row]) -> list[str]:
    """Commands that made the rows: costs, which `--seconds` needs, then the runs, together for equal seeds."""
    by_seeds = defaultdict(list)
    for row in rows:
        by_seeds[tuple(sorted(run.seed for run in row.runs))].append(row.scheme)
    lines = []
    costs = {row.scheme: row.cost for row in rows if row.cost}
    if costs:
        cost = next(iter(costs.values()))
        options = f"--rounds {len(cost.rounds)} --steps {cost.steps}"
        lines.append(_command("cost", data, options, list(costs), cost.overrides))
    for seeds, schemes in by_seeds.items():
        if seeds:
            run = next(row.runs[0] for row in rows if row.runs)
            (budget, amount), seed_list = next(iter(run.budget.items())), " ".join(map(str, seeds))
            options = f"--{budget.replace('_', '-')} {amount} --seeds {seed_list}"
            lines.append(_command("run", data, options, schemes, run.overrides))
    return [*lines, "la-det compare report"]


def _command(name: str, data: str, options: str, schemes: list[str], overrides: list[str]) -> str:
    line = f"la-det compare {name} --data {data} {options}"
    if tuple(schemes) != SCHEMES:
        line += f" --schemes {' '.join(schemes)}"
    return line + (f" --opts {shlex.join(overrides)}" if overrides else "")


def _conditions(rows: list[Row]) -> str:
    """A sentence on the length of the runs and the machine."""
    records = [record for row in rows for record in (*row.runs, row.cost) if record]
    where = sorted({f"{r.device} ({r.threads} threads), torch {r.versions['torch']}" for r in records})
    iterations = sorted({run.max_iter for row in rows for run in row.runs})
    trained = " to ".join(map(str, sorted({iterations[0], iterations[-1]}))) + " iterations; " if iterations else ""
    return f"{trained}{'; '.join(where)}.\n"


def _markdown(header: list[str], lines: list[tuple[Row, list[Figure | None]]]) -> str:
    cells = [
        [_link(row), *(_text(column, figure) for column, figure in zip(header, figures, strict=True))]
        for row, figures in lines
    ]
    return tabulate(cells, ["scheme", *header], tablefmt="github", disable_numparse=True) + "\n"


def _link(row: Row) -> str:
    if not row.runs:
        return row.scheme
    project = row.runs[0].config.partition("/")[0]
    return f"[{row.scheme}](../projects/{project}/README.md)"


def nms_gains(row: Row) -> list[float]:
    """What NMS adds to the AP of each run; empty without both AP."""
    pairs = [
        (metric(run.evaluations[-1], "AP with NMS"), metric(run.evaluations[-1], "AP without NMS")) for run in row.runs
    ]
    return [] if any(None in pair for pair in pairs) else [with_nms - without for with_nms, without in pairs]


def _interval(values: list[float]) -> str:
    """The mean, and its confidence interval if there are several values."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{round(mean, 1) + 0.0:.1f}"  # not -0.0
    low, high = stats.t.interval(CONFIDENCE, len(values) - 1, mean, stats.sem(values))
    return f"{mean:.1f} ({low:.1f} to {high:.1f})"


def _text(column: str, figure: Figure | None) -> str:
    if figure is None:
        return ""
    decimals = DECIMALS.get(column, 1)
    spread = f" ± {figure.spread:.{decimals}f}" if figure.seeds > 1 else ""
    return f"{figure.mean:.{decimals}f}{spread}"


def _write_csv(path: Path, header: list[str], lines: list[tuple[Row, list[Figure | None]]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["scheme", "seeds", *(name for column in header for name in (column, f"{column} spread"))])
        for row, figures in lines:
            values = (v for f in figures for v in (("", "") if f is None else (f.mean, f.spread)))
            writer.writerow([row.scheme, len(row.runs), *(v if v == "" else f"{v:.6g}" for v in values)])
