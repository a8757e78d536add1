"""Plots of a comparison."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from la_det.benchmark.train import PARTS
from la_det.comparison.summary import CROWDED, Row

MARKERS = "osD^vPX"
LINES = ("-", "--", ":", "-.")


def draw(rows: list[Row], folder: Path, data: str) -> list[Path]:
    """Draw the plots for which there are figures, as PNG files in `folder`. Return their paths."""
    plots: dict[str, Callable[[list[Row]], Figure | None]] = {
        "nms": ap_with_and_without_nms,
        "time": ap_over_time,
        "duplicates": duplicates_by_crowding,
        "cost": cost_of_a_step,
        "miss_rate": ap_and_miss_rate,
    }
    paths = []
    for name, plot in plots.items():
        figure = plot(rows)
        if figure is not None:
            figure.axes[0].set_title(data)
            paths.append(folder / f"{data}_{name}.png")
            figure.savefig(
                paths[-1], dpi=100, metadata={"Software": None}
            )  # no version, so that the file stays the same
    return paths


def ap_with_and_without_nms(rows: list[Row]) -> Figure | None:
    """Plot with two bars for each scheme, the best on top, and the spread over seeds; None without both APs."""
    columns = ("AP without NMS", "AP with NMS")
    found = [(row.scheme, figures) for row in rows if set(columns) <= (figures := row.figures()).keys()]
    if not found:
        return None
    found.sort(key=lambda row: max(row[1][column].mean for column in columns))  # the best on top
    axes = _axes(len(found))
    places = np.arange(len(found))
    for offset, column in zip((0.2, -0.2), columns, strict=True):
        means, spreads = ([getattr(figures[column], f) for _, figures in found] for f in ("mean", "spread"))
        error = [spread or np.nan for spread in spreads]  # no error bar for a single seed
        axes.barh(places + offset, means, 0.4, xerr=error, capsize=2, label=column.removeprefix("AP "))
    axes.set_yticks(places, [scheme for scheme, _ in found])
    axes.set_ylim(-0.6, len(found) - 0.4)
    axes.set(xlabel="AP", ylabel="")
    axes.legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    return axes.figure


def ap_over_time(rows: list[Row]) -> Figure | None:
    """Plot with a line for each scheme, the finally best one first in the legend; None without several evaluations.

    The time is that of the steps, by the costs; without the cost of every scheme, iterations take its place.
    """
    lines = [(row, points) for row in rows if len(points := row.ap_over_iterations()) > 1]
    if not lines:
        return None
    axes, styles = _axes(len(lines)), _styles(rows)
    timed = all(row.cost for row, _ in lines)
    for row, points in sorted(lines, key=lambda line: -line[1][-1][1]):
        iterations, aps = zip(*points, strict=True)
        minutes = row.cost.median("step") / 60_000 if timed else 1
        axes.plot([minutes * number for number in iterations], aps, label=row.scheme, **styles[row.scheme])
    axes.set_xlabel("minutes of training steps" if timed else "iterations")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return axes.figure


def duplicates_by_crowding(rows: list[Row]) -> Figure | None:
    """Plot with a bar of two parts for each scheme, on a scale that has 0 and is logarithmic above 1."""
    found = [(row.scheme, figures) for row in rows if set(CROWDED) <= (figures := row.crowding()).keys()]
    if not found:
        return None
    found.sort(key=lambda row: -sum(row[1].values()))
    axes, places = _axes(len(found)), np.arange(len(found))
    for offset, part in zip((0.2, -0.2), CROWDED, strict=True):
        axes.barh(places + offset, [figures[part] for _, figures in found], 0.4, label=f"of {part} objects")
    axes.set_yticks(places, [scheme for scheme, _ in found])
    axes.set_ylim(-0.6, len(found) - 0.4)
    axes.set_xscale("symlog", linthresh=1)
    axes.set(xlabel="duplicates per image, without NMS unless the config has it", ylabel="")
    axes.legend(loc="upper right")
    return axes.figure


def cost_of_a_step(rows: list[Row]) -> Figure | None:
    """Plot with a bar of parts for each scheme that has a cost, the fastest on top; None if there is none."""
    costs = sorted((row.cost for row in rows if row.cost), key=lambda cost: -cost.median("step"))
    if not costs:
        return None
    axes, start = _axes(len(costs)), np.zeros(len(costs))
    for part in PARTS:
        if all(part in figures for cost in costs for figures in cost.rounds):
            width = np.array([cost.median(part) for cost in costs])
            axes.barh(range(len(costs)), width, left=start, label=part)
            start += width
    axes.set_yticks(range(len(costs)), [cost.scheme for cost in costs])
    axes.set_ylim(-0.6, len(costs) - 0.4)
    axes.set(xlabel="milliseconds of a training step", ylabel="")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return axes.figure


def ap_and_miss_rate(rows: list[Row]) -> Figure | None:
    """Plot with a point for each scheme, the best towards the upper left; None without mMR."""
    found = {row.scheme: figures for row in rows if {"AP", "mMR"} <= (figures := row.figures()).keys()}
    if not found:
        return None
    axes, styles = _axes(len(found)), _styles(rows)
    for scheme, figures in sorted(found.items(), key=lambda item: -item[1]["AP"].mean):
        axes.plot(figures["mMR"].mean, figures["AP"].mean, label=scheme, **styles[scheme] | {"linestyle": ""})
    axes.set_xlabel("mMR, where less is better")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return axes.figure


def _axes(num_schemes: int) -> Axes:
    """Axes that are high enough for a line of text per scheme."""
    axes = Figure(figsize=(9, max(4.5, 1 + 0.24 * num_schemes)), layout="constrained").add_subplot()
    axes.set_ylabel("AP")
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    return axes


def _styles(rows: list[Row]) -> dict[str, dict[str, object]]:
    """A colour, marker and line for each scheme, the same in all plots and different for all schemes."""
    colours = colormaps["tab10"].colors
    return {
        row.scheme: {
            "color": colours[i % len(colours)],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": LINES[i // len(colours) % len(LINES)],
            "markersize": 5,
        }
        for i, row in enumerate(rows)
    }
