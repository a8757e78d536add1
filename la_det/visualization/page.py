"""Assignments on images of a data set as one self-contained HTML page."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from importlib.resources import files
from io import BytesIO

import numpy as np
from PIL import Image

from la_det.visualization.locations import Locations
from la_det.visualization.snapshots import Panel, Picture
from la_det.visualization.style import KIND_NAMES, level_colour, marker_size

JPEG_QUALITY = 90


def render(dataset: str, pictures: Sequence[Picture], rows: Sequence[Sequence[Panel]], note: str = "") -> str:
    """The page: images, data, style and script in one text.

    Args:
        dataset: name of the data set.
        pictures: the images.
        rows: panels of each moment, with the locations of all images.
        note: text at the top of the page.
    """
    levels = max((panel.levels for panel in rows[0]), key=len)
    content = {
        "dataset": dataset,
        "note": note,
        "kinds": KIND_NAMES,
        "levels": [{"name": name, "colour": level_colour(i), "size": marker_size(i)} for i, name in enumerate(levels)],
        "pictures": [_picture(picture) for picture in pictures],
        "rows": [[_panel(panel) for panel in row] for row in rows],
    }
    # In JSON, "<" occurs in strings only. It is escaped, so that no name can end the script element.
    data = json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return files(__package__).joinpath("page.html").read_text(encoding="utf-8").replace("{{DATA}}", data)


def _picture(picture: Picture) -> dict:
    # PNG keeps small images exact; a photograph would be several times larger in PNG than in JPEG.
    small = picture.pixels.size < 1 << 18
    kind, options = ("png", {}) if small else ("jpeg", {"quality": JPEG_QUALITY})
    buffer = BytesIO()
    Image.fromarray(picture.pixels).save(buffer, kind, **options)
    return {
        "name": picture.name,
        "width": picture.pixels.shape[1],
        "height": picture.pixels.shape[0],
        "source": f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}",
        "boxes": _numbers(picture.boxes, 1),
        "classes": picture.classes,
        "ignored": picture.ignored.tolist(),
    }


def _panel(panel: Panel) -> dict:
    priors = panel.priors
    return {
        "scheme": panel.scheme,
        "criterion": panel.criterion,
        "moment": panel.moment,
        "strides": priors.level_strides,
        "first": [priors.offset * stride + priors.shift for stride in priors.level_strides],
        "found": [_locations(found) for found in panel.found],
    }


def _locations(found: Locations) -> dict:
    """The locations as columns, which take a third of the space of rows with names."""
    columns = {"kind": found.kind.tolist(), "gt": found.gt.tolist(), "level": found.level.tolist()}
    columns |= {name: _numbers(getattr(found, name), 1) for name in ("point", "box", "anchor")}
    names = ("weight", "target", "strength", "probability", "iou")
    return columns | {name: _numbers(getattr(found, name), 3) for name in names}


def _numbers(values: np.ndarray, digits: int) -> list:
    """Rounded values; NaN and infinity, which JSON does not have, become null."""
    exact = values.astype(np.float64)
    return np.where(np.isfinite(exact), exact.round(digits), None).tolist()
