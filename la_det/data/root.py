"""The folder of all data sets that Detectron2 and la_det register: `$DETECTRON2_DATASETS`."""

from __future__ import annotations

import os
from pathlib import Path

DATASETS_ROOT = Path(os.getenv("DETECTRON2_DATASETS", "datasets")).expanduser()
_TITLES = {"coco": "COCO"}  # folder -> name of the data set, if it is another one


def why_missing(path: str | Path) -> str:
    """What to do about a missing file or folder, one line. Below `DATASETS_ROOT`: where its data set is looked for."""
    try:
        folder, *inside = Path(os.path.abspath(path)).relative_to(os.path.abspath(DATASETS_ROOT)).parts
    except ValueError:  # it is elsewhere
        return f"{path}: no such file or folder; check the path"
    place = os.path.abspath(DATASETS_ROOT / folder)
    lacks = f"has no {'/'.join(inside)}" if os.path.isdir(place) else "does not exist"
    return (
        f"{_TITLES.get(folder, folder)} is looked for in {place}, which {lacks}; "
        f"set DETECTRON2_DATASETS to the folder that has {folder}/"
    )
