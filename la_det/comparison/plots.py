"""Plots of a comparison."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from la_det.benchmark.train import PARTS
from la_det.comparison.summary import CROWDED, Row

MARKERS = "osD^vPX*<>"
BRIGHT = 8  # lines of a plot that have a colour
DUPLICATE_TICKS = (0.02, 0.05, 0.1, 0.3, 1, 3, 10, 30, 100, 300)

# Name -> what the plot shows, and the function that draws it.
PLOTS: dict[str, tuple[str, Callable[[list[Row]], Figure | None]]] = {}


def plot(name: str, caption: str) -> Callable[[Callable], Callable]:
    """Decorator of the functions that draw plots: they are made in this order, with these captions below."""

    def add(function: Callable[[list[Row]], Figure | None]) -> Callable[[list[Row]], Figure | None]:
        PLOTS[name] = caption, function
        return function

    return add


def draw(rows: list[Row], folder: Path, data: str) -> list[tuple[Path, str]]:
    """Draw the plots for which there are figures, as PNG files in `folder`. Return their paths and captions."""
    drawn = []
    for name, (caption, function) in PLOTS.items():
        figure = function(rows)
        if figure is not None:
            figure.axes[0].set_title(data)
            path = folder / f"{data}_{name}.png"
            figure.savefig(path, dpi=100, metadata={"Software": None})  # no version, so that the file stays the same
            drawn.append((path, caption))
    return drawn


@plot("nms", "AP of the same detections with and without NMS. The lines are sample standard deviations over seeds.")
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


@plot(
    "time", "AP over the time of the training's steps. The schemes that are best at last have colours, the best first."
)
def ap_over_time(rows: list[Row]) -> Figure | None:
    """Plot with a line for each scheme, the finally best one first in the legend; None without several evaluations.

    The time is that of the steps, by the costs; without the cost of every scheme, iterations take its place.
    """
    lines = [(row, points) for row in rows if len(points := row.ap_over_iterations()) > 1]
    if not lines:
        return None
    axes = _axes(BRIGHT)
    timed = all(row.cost for row, _ in lines)
    for place, (row, points) in enumerate(sorted(lines, key=lambda line: -line[1][-1][1])):
        iterations, aps = zip(*points, strict=True)
        minutes = row.cost.median("step") / 60_000 if timed else 1
        label = row.scheme if place < BRIGHT else "others" if place == BRIGHT else None
        axes.plot([minutes * number for number in iterations], aps, label=label, **_style(place))
    axes.set_xlabel("minutes of training steps" if timed else "iterations")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return axes.figure


@plot(
    "duplicates",
    "Duplicates of objects that stand apart, and of objects in crowds, without NMS unless the config has it. The scale "
    "is logarithmic above 0.1.",
)
def duplicates_by_crowding(rows: list[Row]) -> Figure | None:
    """Plot with two bars for each scheme, on a scale that has 0 and is logarithmic above 0.1."""
    found = [(row.scheme, figures) for row in rows if set(CROWDED) <= (figures := row.crowding()).keys()]
    if not found:
        return None
    found.sort(key=lambda row: -sum(row[1].values()))
    axes, places = _axes(len(found)), np.arange(len(found))
    for offset, part in zip((0.2, -0.2), CROWDED, strict=True):
        axes.barh(places + offset, [figures[part] for _, figures in found], 0.4, label=f"of {part} objects")
    axes.set_yticks(places, [scheme for scheme, _ in found])
    axes.set_ylim(-0.6, len(found) - 0.4)
    axes.set_xscale("symlog", linthresh=0.1)
    most = max(value for _, figures in found for value in figures.values())
    ticks = [0, *(tick for tick in DUPLICATE_TICKS if tick <= 2 * most)]
    axes.set_xticks(ticks, map(str, ticks))
    axes.set(xlabel="duplicates per image", ylabel="")
    axes.legend(loc="upper right")
    return axes.figure


@plot("cost", "Time of a training step and its parts, as medians.")
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


@plot("miss_rate", "AP and log-average miss rate: the best are at the upper left.")
def ap_and_miss_rate(rows: list[Row]) -> Figure | None:
    """Plot with a point for each scheme, the best towards the upper left; None without mMR."""
    found = {row.scheme: figures for row in rows if {"AP", "mMR"} <= (figures := row.figures()).keys()}
    if not found:
        return None
    axes = _axes(len(found))
    for place, (scheme, figures) in enumerate(sorted(found.items(), key=lambda item: -item[1]["AP"].mean)):
        axes.plot(figures["mMR"].mean, figures["AP"].mean, MARKERS[place % len(MARKERS)], label=scheme)
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


def _style(place: int) -> dict[str, object]:
    """Of the line at this place: a colour and a marker of its own, or grey."""
    if place >= BRIGHT:
        return {"color": "0.8", "linewidth": 1, "zorder": 1}
    return {"color": f"C{place}", "marker": MARKERS[place], "markersize": 5}
