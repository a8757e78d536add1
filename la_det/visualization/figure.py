"""Assignments on one image as a matplotlib figure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from la_det.visualization.locations import Kind, Locations
from la_det.visualization.snapshots import Panel, Picture
from la_det.visualization.style import KIND_NAMES, level_colour, marker_size

PANEL_WIDTH, TITLE_HEIGHT, LEGEND_HEIGHT = 4.2, 0.55, 0.05  # inches
MAX_COLUMNS = 4  # columns of moments
MARKERS = {Kind.POSITIVE: "o", Kind.SOFT: "D", Kind.NEGATIVE: "s", Kind.DROPPED: "x"}
INK = "#222222"
PALE = 0.6  # contrast of the image, reduced so that the markers stand out


def draw(picture: Picture, index: int, rows: Sequence[Sequence[Panel]]) -> Figure:
    """Figure with a column for each scheme and criterion, and a row for each moment.

    If there is only one scheme with one criterion, its moments lie side by side.

    Args:
        picture: the image.
        index: number of the image in the panels.
        rows: panels of each moment.
    """
    columns = len(rows[0]) if len(rows[0]) > 1 else min(len(rows), MAX_COLUMNS)
    panels = [panel for row in rows for panel in row]
    num_rows = math.ceil(len(panels) / columns)
    height, width = picture.pixels.shape[:2]
    panel_height = PANEL_WIDTH * height / width + TITLE_HEIGHT
    figure = Figure((PANEL_WIDTH * columns, panel_height * num_rows + LEGEND_HEIGHT), layout="constrained")
    for axes in figure.subplots(num_rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, panel in zip(figure.axes, panels, strict=False):
        _draw_panel(axes, picture, panel, panel.found[index])
    kinds = sorted({kind for panel in panels for kind in panel.found[index].kind.tolist()})
    handles = _legend(max((panel.levels for panel in panels), key=len), kinds)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(len(handles), 4 * columns),
        frameon=False,
        fontsize=8,
        columnspacing=1.2,
        handletextpad=0.3,
    )
    return figure


def _draw_panel(axes: Axes, picture: Picture, panel: Panel, found: Locations) -> None:
    grey = picture.pixels.mean(2) * PALE + (1 - PALE) * 255
    height, width = grey.shape
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), interpolation="nearest")
    for number, (box, ignored) in enumerate(zip(picture.boxes, picture.ignored, strict=True)):
        _draw_truth(axes, box, str(number), ignored)
    _draw_spokes(axes, picture, found[found.positive])
    for level in reversed(range(len(panel.levels))):  # the small markers of fine levels on top
        for kind in reversed(Kind):
            _draw_markers(axes, found[(found.level == level) & (found.kind == kind)], kind, level)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_title(f"{panel.scheme}: {panel.criterion}\n{panel.moment}\n{_summary(picture, found)}", fontsize=8)


def _draw_truth(axes: Axes, box: np.ndarray, label: str, ignored: bool) -> None:
    (x1, y1, x2, y2), style = box, "dotted" if ignored else "solid"
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=INK, linewidth=0.8, linestyle=style))
    halo = [withStroke(linewidth=2, foreground="white")]
    above = y1 > 0.04 * axes.get_ylim()[0]
    axes.text(x1, y1, label, fontsize=7, color=INK, va="bottom" if above else "top", path_effects=halo, clip_on=True)


def _draw_spokes(axes: Axes, picture: Picture, found: Locations) -> None:
    """Lines from each positive to the centre of its ground truth."""
    centers = picture.boxes.reshape(-1, 2, 2).mean(1)[found.gt]
    colours = [to_rgba(level_colour(n), 0.25 + 0.5 * s) for n, s in zip(found.level, found.strength, strict=True)]
    axes.add_collection(LineCollection(np.stack([centers, found.point], 1), colors=colours, linewidths=0.8))


def _draw_markers(axes: Axes, found: Locations, kind: Kind, level: int) -> None:
    """Markers of the level's size; a positive is filled to the share of its area that is its strength."""
    (x, y), colour, area = found.point.T, level_colour(level), marker_size(level) ** 2
    if kind == Kind.DROPPED:
        axes.scatter(x, y, area / 2, colour, marker=MARKERS[kind], linewidths=1)
        return
    if kind == Kind.NEGATIVE:
        axes.scatter(
            x, y, 1.7 * area, "none", marker=MARKERS[kind], linewidths=0.3 + 1.7 * found.strength, edgecolors=colour
        )
        return
    area = area * (0.7 if kind == Kind.SOFT else 1.0)  # a diamond is wider than a disc of its size
    axes.scatter(x, y, area, "#ffffffb0", marker=MARKERS[kind], linewidths=1, edgecolors=colour)
    axes.scatter(x, y, area * found.strength, colour, marker=MARKERS[kind], linewidths=0)


def _summary(picture: Picture, found: Locations) -> str:
    """Counts of the kinds of locations, in words."""
    counts = np.bincount(found.kind, minlength=len(Kind))
    without = np.setdiff1d(np.flatnonzero(~picture.ignored), found.gt[found.positive])
    words = ("positive", "soft", "with another background weight", "dropped")
    text = ", ".join(f"{n} {word}" for n, word in zip(counts, words, strict=True) if n) or "all background"
    if len(without) > 5:
        return f"{text}; none for {len(without)} ground truths"
    return text + (f"; none for {', '.join(map(str, without))}" if len(without) else "")


def _legend(levels: Sequence[str], kinds: Sequence[int]) -> list[Line2D]:
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=marker_size(i) * 0.8, color=level_colour(i), label=name)
        for i, name in enumerate(levels)
    ]
    for kind in kinds:
        handles.append(
            Line2D([], [], linestyle="", marker=MARKERS[kind], color=INK, fillstyle="none", label=KIND_NAMES[kind])
        )
    return handles
