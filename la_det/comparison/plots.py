"""Plots of a comparison."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from la_det.comparison.schemes import rank
from la_det.comparison.summary import Row

MARKERS = "osD^v"


def draw(rows: list[Row], folder: Path, data: str) -> list[Path]:
    """Draw what there are figures for as PNG files in `folder`; return their paths."""
    plots: dict[str, Callable[[Axes, list[Row]], bool]] = {
        "nms": ap_with_and_without_nms,
        "iterations": ap_over_iterations,
        "cost": ap_and_cost,
    }
    paths = []
    for name, plot in plots.items():
        figure = Figure(figsize=(9, 4.5), layout="constrained")
        axes = figure.add_subplot()
        if plot(axes, rows):
            axes.set_title(data)
            axes.grid(alpha=0.3)
            axes.set_axisbelow(True)
            paths.append(folder / f"{data}_{name}.png")
            figure.savefig(paths[-1], dpi=100, metadata={"Software": None})
    return paths


def ap_with_and_without_nms(axes: Axes, rows: list[Row]) -> bool:
    """Two bars for each scheme, with the spread over seeds; False if no scheme has both APs."""
    columns = ("AP without NMS", "AP with NMS")
    found = [(row.scheme, figures) for row in rows if set(columns) <= (figures := row.figures()).keys()]
    places = np.arange(len(found))
    for offset, column in zip((-0.2, 0.2), columns, strict=True):
        means, spreads = ([getattr(figures[column], f) for _, figures in found] for f in ("mean", "spread"))
        error = [spread or np.nan for spread in spreads]  # no error bar for a single seed
        axes.bar(places + offset, means, 0.4, yerr=error, capsize=2, label=column.removeprefix("AP "))
    axes.set_xticks(places, [scheme for scheme, _ in found], rotation=35, ha="right")
    axes.set_ylabel("AP")
    axes.legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    return bool(found)


def ap_over_iterations(axes: Axes, rows: list[Row]) -> bool:
    """A line for each scheme, the best at the end on top of the legend; False if no scheme has several evaluations."""
    lines = [(row.scheme, points) for row in rows if len(points := row.ap_over_iterations()) > 1]
    for scheme, points in sorted(lines, key=lambda line: -line[1][-1][1]):
        axes.plot(*zip(*points, strict=True), label=scheme, **_style(scheme))
    axes.set(xlabel="iterations", ylabel="AP")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return bool(lines)


def ap_and_cost(axes: Axes, rows: list[Row]) -> bool:
    """A point for each scheme that has both; False if none has."""
    found = [(row.scheme, figures) for row in rows if {"AP", "s/iter"} <= (figures := row.figures()).keys()]
    for scheme, figures in found:
        axes.plot(figures["s/iter"].mean, figures["AP"].mean, linestyle="", label=scheme, **_style(scheme))
    axes.set(xlabel="seconds per iteration", ylabel="AP")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return bool(found)


def _style(scheme: str) -> dict[str, object]:
    """Colour and marker, the same in all plots."""
    number = rank(scheme)[0]
    return {"color": colormaps["tab20"](number % 20), "marker": MARKERS[number % len(MARKERS)], "markersize": 5}
