"""The blocks of the documents are run as they are written, in a folder that has what they name.

Blocks with a comment `<!-- not run: REASON -->` are not run; test_commands.py at least parses them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from la_det import model_zoo
from tests.docs.blocks import ROOT, SLOW, Block, blocks
from tests.tiny_coco import write_tiny_coco

RUN = [
    pytest.param(block, marks=[pytest.mark.slow] if block.note == SLOW else [], id=str(block))
    for block in blocks("bash", "python")
    if block.is_run
]
DEMO, OWN = "POTO/poto_r18_fpn_shapes_tiny", "O2F/o2f_r18_fpn_shapes_tiny"
COPIED = ("docs", "configs", "projects", "tools")  # what a command may change; all else is linked


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the command la-det."""
    place = tmp_path_factory.mktemp("checkout")
    for path in ROOT.iterdir():
        if path.name in COPIED:
            shutil.copytree(path, place / path.name)
        elif path.name not in ("output", "datasets") and not path.name.startswith("."):
            (place / path.name).symlink_to(path)
    command = place / ".venv/bin/la-det"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m la_det "$@"\n')
    command.chmod(0o755)
    return place


@pytest.fixture(scope="session")
def filled(place: Path) -> Path:
    """The checkout with data, pictures, and the results of two short runs."""
    write_tiny_coco(place)  # images/, train.json, val.json
    (place / "pictures").mkdir()
    for name, source in (("a.jpg", "0.jpg"), ("b.jpg", "1.jpg")):
        shutil.copy(place / "images" / source, place / "pictures" / name)
    shutil.copy(place / "images/0.jpg", place / "a.jpg")
    shutil.copy(place / "images/1.jpg", place / "b.png")
    run(place, f"la-det train {DEMO} --output output/demo train.max_iter=2 train.device=cpu")
    run(place, f"la-det train {OWN} --output output/mine --dataset coco:images,train.json train.max_iter=1")
    (place / "output/date_f").mkdir()
    save_weights("POTO/poto_r50_fpn_3x_ms_coco", place / "weights.pth")
    save_weights("DATE/date_f_r18_fpn_shapes_tiny", place / "output/date_f/model_final.pth")
    return place


def save_weights(config: str, file: Path) -> None:
    torch.save({"model": model_zoo.get(config).state_dict()}, file)


def run(place: Path, text: str) -> None:
    path = os.pathsep.join([str(place / ".venv/bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment |= {"DETECTRON2_DATASETS": str(place.parent / "datasets")}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text], cwd=place, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("block", RUN)
def test_block(block: Block, place: Path, request: pytest.FixtureRequest):
    if block.note == SLOW:
        request.getfixturevalue("filled")
    if block.language == "bash":
        run(place, block.text)
        return
    (place / "snippet.py").write_text(block.text)
    run(place, "python3 snippet.py")
