"""Links between the documents, as GitHub follows them: files exist, and headings."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.blocks import DOCUMENTS, FENCE, ROOT

LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FILES = [*DOCUMENTS, ROOT / "CHANGELOG.md"]


def anchor(heading: str) -> str:
    """GitHub's name of a heading: lower case, without punctuation and markup, hyphens for spaces."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.replace("`", ""))
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


@cache
def prose(file: Path) -> str:
    return FENCE.sub("", file.read_text())


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_links(file: Path):
    broken = []
    for address in LINK.findall(prose(file)):
        path, _, heading = address.partition("#")
        if re.match(r"\w+:", path):
            continue
        target = (file.parent / path).resolve() if path else file
        if target.is_dir() and (target / "README.md").exists():
            target = target / "README.md"
        if not target.exists():
            broken.append(address)
        elif heading and heading not in map(anchor, HEADING.findall(prose(target))):
            broken.append(address)
    assert broken == []


def test_every_page_is_in_the_navigation():
    """And every page of docs/ can be reached from the README within two links."""
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = [file.relative_to(ROOT / "docs").as_posix() for file in DOCUMENTS if ROOT / "docs" in file.parents]
    pages += [f"schemes/{file.parent.name}.md" for file in DOCUMENTS if "projects" in file.parts]
    assert [page for page in pages if not re.search(rf": {re.escape(page)}$", navigation, re.MULTILINE)] == []


def test_every_module_is_in_the_reference():
    """Of the packages that the reference covers: a new module needs a line in a file of docs/api."""
    named = {m for page in (ROOT / "docs/api").glob("*.md") for m in re.findall(r"^::: (\S+)$", page.read_text(), re.M)}
    packages = {m.rpartition(".")[0] for m in named} - {"la_det", ""}
    modules = {
        f"{package}.{file.stem}"
        for package in packages
        for file in (ROOT / package.replace(".", "/")).glob("*.py")
        if file.stem != "__init__"
    }
    assert modules - named == set() and {m for m in named if not _source(m).exists()} == set()


def _source(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path if path.is_dir() else path.with_suffix(".py")


@pytest.mark.parametrize("project", sorted((ROOT / "projects").glob("*/README.md")), ids=lambda file: file.parent.name)
def test_a_project_begins_with_its_rule(project: Path):
    """In at most five lines, with a small picture."""
    rule = next(p for p in project.read_text().split("\n\n") if p.startswith("**The rule.**"))
    picture = ROOT / f"docs/images/schemes/{project.parent.name}.png"
    assert len(rule.splitlines()) <= 5 and max(map(len, rule.splitlines())) <= 120
    assert picture.stat().st_size <= 60 * 1024 and f"docs/images/schemes/{picture.name}" in project.read_text()
