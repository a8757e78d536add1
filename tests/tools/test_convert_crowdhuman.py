import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

LOADER = Path(__file__).parents[1] / "data/crowdhuman/loader"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = Path(__file__).parents[2] / "tools/convert_crowdhuman.py"
    spec = importlib.util.spec_from_file_location("convert_crowdhuman", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_odgt_to_coco_is_the_official_conversion(tool: ModuleType, tmp_path: Path) -> None:
    tool.main([str(LOADER / "annotation.odgt"), str(tmp_path / "out.json")])
    assert json.loads((tmp_path / "out.json").read_text()) == json.loads((LOADER / "expected_coco.json").read_text())


def test_back_and_forth_loses_nothing_that_coco_holds(tool: ModuleType, tmp_path: Path) -> None:
    tool.main([str(LOADER / "expected_coco.json"), str(tmp_path / "back.odgt")])
    tool.main([str(tmp_path / "back.odgt"), str(tmp_path / "again.json")])
    again = json.loads((tmp_path / "again.json").read_text())
    assert again == json.loads((LOADER / "expected_coco.json").read_text())

    originals = [json.loads(line) for line in (LOADER / "annotation.odgt").read_text().splitlines()]
    records = [json.loads(line) for line in (tmp_path / "back.odgt").read_text().splitlines()]
    assert [record["ID"] for record in records] == [record["ID"] for record in originals]
    for record, original in zip(records, originals, strict=True):
        for key in ("fbox", "vbox"):
            assert [box[key] for box in record["gtboxes"]] == [box[key] for box in original["gtboxes"]]


def test_damaged_line(tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (LOADER / "annotation.odgt").read_text().splitlines()
    source, target = tmp_path / "damaged.odgt", tmp_path / "out.json"
    source.write_text("\n".join([lines[0], lines[1][:-9], *lines[2:]]))
    with pytest.raises(SystemExit) as exit:
        tool.main([str(source), str(target)])
    assert exit.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {source}, line 2: not JSON")
    assert not target.exists()
    tool.main([str(source), str(target), "--skip-bad"])
    assert len(json.loads(target.read_text())["images"]) == len(lines) - 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "car"}]}, "2 categories"),
        ({"images": [{"file_name": "a.png", "id": 1, "height": 1, "width": 1}]}, "a.png"),
        ({"images": [{"file_name": "a.jpg", "id": 1, "height": 1}]}, "width"),
    ],
)
def test_coco_that_odgt_cannot_hold(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict, reason: str
) -> None:
    source = tmp_path / "in.json"
    source.write_text(json.dumps(json.loads((LOADER / "expected_coco.json").read_text()) | change))
    with pytest.raises(SystemExit):
        tool.main([str(source), str(tmp_path / "out.odgt")])
    (line,) = capsys.readouterr().err.splitlines()
    assert str(source) in line and reason in line


def test_wrong_paths(tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tool.main([str(tmp_path / "a.json"), str(tmp_path / "b.json")])
    assert "one of the two files must be named *.odgt" in capsys.readouterr().err
    for source, target in (("missing.odgt", "b.json"), ("missing.json", "b.odgt")):
        with pytest.raises(SystemExit):
            tool.main([str(tmp_path / source), str(tmp_path / target)])
        (line,) = capsys.readouterr().err.splitlines()
        assert str(tmp_path / source) in line
    with pytest.raises(SystemExit):
        tool.main([str(LOADER / "annotation.odgt"), str(tmp_path / "no folder/b.json")])
    assert "no folder" in capsys.readouterr().err


def test_help(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tool.main(["--help"])
    assert "--skip-bad" in capsys.readouterr().out
