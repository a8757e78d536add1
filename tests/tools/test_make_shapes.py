import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import cv2
import pytest

from la_det.data.shapes import SHAPES

SMALL = {name: replace(spec, num_train=2, num_val=7) for name, spec in SHAPES.items()}


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = Path(__file__).parents[2] / "tools/make_shapes.py"
    spec = importlib.util.spec_from_file_location("make_shapes", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SHAPES", SMALL)
    return module


def test_generates_and_draws_a_contact_sheet(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.png"
    tool.main(["shapes_tiny", "shapes_crowd", "--root", str(tmp_path), "--preview", str(sheet)])
    printed = capsys.readouterr().out
    for name in ("shapes_tiny", "shapes_crowd"):
        assert json.loads((tmp_path / name / "manifest.json").read_text())["sha256"] in printed
    # Of each of the two data sets 7 images in rows of 6.
    assert cv2.imread(str(sheet)).shape == (4 * tool.TILE, 6 * tool.TILE, 3)


def test_the_sheet_shows_boxes_in_place(tool: ModuleType) -> None:
    annotation = {"bbox": [10, 20, 30, 40], "bbox_vis": [15, 25, 20, 20], "iscrowd": 0, "category_id": 1}
    image = cv2.UMat(128, 128, cv2.CV_8UC3, (0, 0, 0)).get()
    tile = tool.draw_annotations(image, [annotation], {1: "person"})
    scale = tool.TILE / 128
    for colour, (x, y, width, height) in ((tool.GREEN, annotation["bbox"]), (tool.YELLOW, annotation["bbox_vis"])):
        assert tuple(tile[int(y * scale), int((x + width / 2) * scale)]) == colour
        assert tuple(tile[int((y + height / 2) * scale), int(x * scale)]) == colour
    crowd = tool.draw_annotations(image, [annotation | {"iscrowd": 1}], {1: "person"})
    assert (crowd == tool.RED).all(axis=2).any() and not (crowd == tool.GREEN).all(axis=2).any()


def test_force_replaces_another_version(tool: ModuleType, tmp_path: Path) -> None:
    command = ["shapes_tiny", "--root", str(tmp_path)]
    tool.main(command)
    manifest = tmp_path / "shapes_tiny/manifest.json"
    original = manifest.read_text()
    manifest.write_text(json.dumps(json.loads(original) | {"version": 0}))
    with pytest.raises(SystemExit, match="--force"):
        tool.main(command)
    tool.main([*command, "--force"])
    assert manifest.read_text() == original


def test_help_and_wrong_usage(tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        tool.main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in (*SHAPES, "--root", "--workers", "--force", "--preview"))
    with pytest.raises(SystemExit):
        tool.main(["squares"])
    assert "squares" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="missing"):
        tool.main(["shapes_tiny", "--root", str(tmp_path), "--preview", str(tmp_path / "missing/sheet.png")])
