"""The pages that tools write from records are what they would write today."""

import importlib
import shutil
from pathlib import Path

import pytest

from la_det.comparison.report import write_report
from tests.docs.blocks import ROOT

DOCS = ROOT / "docs"


@pytest.mark.parametrize("folder", ["comparison", "date_convergence"])
def test_the_comparison_is_that_of_its_records(folder, tmp_path, monkeypatch):
    copy = Path("docs", folder)
    shutil.copytree(DOCS / folder, tmp_path / copy)
    monkeypatch.chdir(tmp_path)
    assert write_report(copy).read_text() == (DOCS / f"{folder}.md").read_text()
    for table in (DOCS / folder).glob("*.csv"):
        assert (copy / table.name).read_text() == table.read_text()


@pytest.mark.parametrize("name", ["noise", "dual_grid"])
def test_the_report_is_that_of_its_records(name, monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    assert importlib.import_module(name).report() == (DOCS / f"{name}.md").read_text()


def test_the_grid_is_made_of_the_pair_s_branches(monkeypatch):
    """POTO beside FCOS is DATE-F itself, TAL 1 beside TAL 10 has TAL's criteria, and POTO alone has one branch."""
    monkeypatch.syspath_prepend(DOCS)
    grid = importlib.import_module("dual_grid")
    date_f, pair = grid.twin("DATE/date_f").model, grid.pair("POTO", "FCOS").model
    assert [c.matcher for c in pair.criteria] == [c.matcher for c in date_f.criteria]
    tal, pair = grid.twin("DATE/tal_dual").model, grid.pair("TAL 1", "TAL 10").model
    assert [c.matcher for c in pair.criteria] == [c.matcher for c in tal.criteria]
    alone = grid.pair("POTO", grid.ALONE).model
    assert [c.matcher for c in alone.criteria] == [c.matcher for c in date_f.criteria[:1]]
    assert [name for name in alone.head.predictors if name != "_target_"] == ["one_to_one"]
    assert len({str([c.matcher for c in grid.pair(*names).model.criteria]) for names in grid.PAIRS}) == 12
