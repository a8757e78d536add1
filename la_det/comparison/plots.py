"""Plots of a comparison."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from la_det.comparison.summary import Row

MARKERS = "osD^vPX"
LINES = ("-", "--", ":", "-.")


def draw(rows: list[Row], folder: Path, data: str) -> list[Path]:
    """Draw the plots for which there are figures, as PNG files in `folder`. Return their paths."""
    plots: dict[str, Callable[[list[Row]], Figure | None]] = {
        "nms": ap_with_and_without_nms,
        "iterations": ap_over_iterations,
        "cost": ap_and_cost,
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


def ap_over_iterations(rows: list[Row]) -> Figure | None:
    """Plot with a line for each scheme, the finally best one first in the legend; None without several evaluations."""
    lines = [(row.scheme, points) for row in rows if len(points := row.ap_over_iterations()) > 1]
    if not lines:
        return None
    axes, styles = _axes(len(lines)), _styles(rows)
    for scheme, points in sorted(lines, key=lambda line: -line[1][-1][1]):
        axes.plot(*zip(*points, strict=True), label=scheme, **styles[scheme])
    axes.set_xlabel("iterations")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return axes.figure


def ap_and_cost(rows: list[Row]) -> Figure | None:
    """Plot with a point for each scheme that has AP and cost; None if no scheme has both."""
    found = [(row.scheme, figures) for row in rows if {"AP", "s/iter"} <= (figures := row.figures()).keys()]
    if not found:
        return None
    axes, styles = _axes(len(found)), _styles(rows)
    for scheme, figures in found:
        axes.plot(figures["s/iter"].mean, figures["AP"].mean, label=scheme, **styles[scheme] | {"linestyle": ""})
    axes.set_xlabel("seconds per iteration")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
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
