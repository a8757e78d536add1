import shutil
import sys

import pytest

import zoo_table
from la_det.errors import UserError


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["zoo_table.py", *arguments])
    return zoo_table.main()


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """The generated files on their own; the records stay where they are."""
    for file in zoo_table.generated(zoo_table.ROOT):
        target = tmp_path / file.relative_to(zoo_table.ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    monkeypatch.setattr(zoo_table, "ROOT", tmp_path)
    return tmp_path


def test_tables_are_current(monkeypatch, capsys):
    assert run(monkeypatch, "--check") == 0, capsys.readouterr().out


def test_stale_table_is_found_and_written_again(copy, monkeypatch, capsys):
    readme = copy / "projects" / "POTO" / "README.md"
    current = readme.read_text()
    readme.write_text(current.replace("| 39.2 |", "| 99.9 |"))
    assert run(monkeypatch, "--check") == 1
    assert capsys.readouterr().out == "projects/POTO/README.md: not current; run tools/zoo_table.py\n"
    assert "99.9" in readme.read_text(), "a check writes nothing"
    assert run(monkeypatch) == 0
    assert readme.read_text() == current
    assert run(monkeypatch, "--check") == 0


@pytest.mark.parametrize("change", [("zoo: coco", "zoo: koko"), ("<!-- zoo: crowdhuman -->", "")])
def test_places_have_to_be_those_of_the_records(copy, monkeypatch, change):
    readme = copy / "projects" / "POTO" / "README.md"
    readme.write_text(readme.read_text().replace(*change))
    with pytest.raises(UserError, match="POTO/README.md: it has places for .*; add or remove places"):
        run(monkeypatch, "--check")
