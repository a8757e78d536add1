"""The folder of all data sets that Detectron2 and la_det register: `$DETECTRON2_DATASETS`."""

from __future__ import annotations

import os
from pathlib import Path

DATASETS_ROOT = Path(os.getenv("DETECTRON2_DATASETS", "datasets")).expanduser()
_TITLES = {"coco": "COCO"}  # folder -> name of the data set, if it is another one


def is_below_root(path: str | Path) -> bool:
    """Whether a file or folder, which may be missing, is of one of these data sets."""
    return bool(path) and Path(os.path.abspath(path)).is_relative_to(os.path.abspath(DATASETS_ROOT))


def why_missing(path: str | Path) -> str:
    """What to do about a missing file or folder, one line. Below `DATASETS_ROOT`: where its data set is looked for."""
    if not is_below_root(path):
        return f"{path}: no such file or folder; check the path"
    folder, *inside = Path(os.path.abspath(path)).relative_to(os.path.abspath(DATASETS_ROOT)).parts
    place = os.path.abspath(DATASETS_ROOT / folder)
    lacks = f"has no {'/'.join(inside)}" if os.path.isdir(place) else "does not exist"
    return (
        f"{_TITLES.get(folder, folder)} is looked for in {place}, which {lacks}; "
        f"set DETECTRON2_DATASETS to the folder that has {folder}/"
    )
