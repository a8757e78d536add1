"""`make docs` builds the site, and notices what is broken."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    if importlib.util.find_spec("mkdocs") is None:
        missing = "no mkdocs: pip install -e '.[docs]'"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    for folder in ("docs", "projects", "configs", "la_det", "tools", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "*.npz"))
    for file in ("mkdocs.yml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / file, tmp_path)
    return tmp_path


def build(folder: Path) -> tuple[int, str]:
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def replace(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))


def test_site(copy):
    status, printed = build(copy)
    assert status == 0, printed
    poto = (copy / "output/site/schemes/POTO.html").read_text()
    assert re.search(r'href="\.\./api/matchers\.html#la_det\.matchers\.poto"', poto)  # a source in the reference
    assert 'href="../source/configs/common/models/poto.py.html"' in poto  # any other source
    assert 'src="../images/schemes/POTO.png"' in poto


def test_what_is_broken_is_named(copy):
    index, glossary, poto = copy / "docs/index.md", copy / "docs/glossary.md", copy / "projects/POTO/README.md"
    replace(index, "(data.md)", "(daten.md)")
    replace(index, "# la_det\n", '# la_det\n\n<script src="https://a.org/b.js"></script>\n')
    replace(glossary, "#what-does-nms-add", "#what-nms-adds")
    replace(poto, "matchers/poto.py)", "matchers/potto.py)")
    replace(copy / "mkdocs.yml", "      - Your own parts: extend.md\n", "")
    status, printed = build(copy)
    assert status != 0
    assert "docs/index.md: link to daten.md, which does not exist" in printed
    assert "index.html: the page loads https://a.org/b.js" in printed
    assert "does not contain an anchor '#what-nms-adds'" in printed
    assert "matchers/potto.py, which does not exist" in printed
    assert 'not included in the "nav" configuration:\n  - extend.md' in printed


def test_a_missing_reference_is_named(copy):
    replace(copy / "docs/api/matchers.md", "::: la_det.matchers.poto\n", "::: la_det.matchers.potto\n")
    status, printed = build(copy)
    assert status != 0 and "la_det.matchers.potto could not be found" in printed
