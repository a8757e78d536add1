#!/usr/bin/env python3
"""Write the tables of the projects' READMEs and the commands of docs/reproduce.md from zoo.yaml and schemes.yaml.

The text between `<!-- zoo: SECTION -->` and `<!-- end -->` is replaced. All other text stays.
"""

from __future__ import annotations

import _start as _start

import argparse
import inspect
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from la_det.errors import UserError, one_line_errors
from la_det.model_zoo.names import get_config_file
from la_det.model_zoo.records import Record, Table, get_records, get_tables
from la_det.model_zoo.schemes import get_schemes, load

ROOT = Path(__file__).resolve().parents[1]
PLACE = re.compile(r"(<!-- zoo: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

EXAMPLES = """
examples:
  after a change of projects/POTO/zoo.yaml: %(prog)s
  is everything current?                    %(prog)s --check
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is not current")
    args = parser.parse_args()
    stale = {file: text for file, text in generated(ROOT).items() if file.read_text() != text}
    for file, text in stale.items():
        print(f"{file.relative_to(ROOT)}: {'not current; run tools/zoo_table.py' if args.check else 'written'}")
        if not args.check:
            file.write_text(text)
    return 1 if args.check and stale else 0


def generated(root: Path) -> dict[Path, str]:
    """File -> the text that it should contain, for all files with generated parts.

    Raises:
        UserError: a file's sections are not those of its records.
    """
    texts = {}
    for readme in sorted((root / "projects").glob("*/README.md")):
        tables = get_tables(readme.parent.name)
        sections = {section: readme_table(table, readme) for section, table in tables.items()}
        texts[readme] = fill(readme, sections | {"where": where_table(readme)})
    reproduce = root / "docs" / "reproduce.md"
    records = get_records().values()
    texts[reproduce] = fill(
        reproduce, {"published": published_results(records), "measured": measuring_commands(records)}
    )
    return texts


def fill(file: Path, sections: dict[str, str]) -> str:
    """The file's text with every section in its place."""
    text = file.read_text()
    places = [place[1] for place in PLACE.findall(text)]
    if sorted(places) != sorted(sections):
        raise UserError(f"{file}: it has places for {places}, the records have {list(sections)}; add or remove places")
    return PLACE.sub(lambda place: f"{place[1]}{sections[place[2]]}\n{place[3]}", text)


def readme_table(table: Table, readme: Path) -> str:
    """A table with a row per record, where the config's name is a link relative to `readme`."""
    header = ["config", *map(column_header, table.columns)]
    return markdown(
        header,
        [[link(record, readme), *(cell(record, column) for column in table.columns)] for record in table.records],
    )


def where_table(readme: Path) -> str:
    """A table with a row per scheme of the project, with links to the scheme's parts."""
    rows = [
        [
            scheme.title,
            source_link(scheme.matcher, readme),
            ", ".join(source_link(f"la_det.modeling.criteria.{loss}", readme) for loss in scheme.losses),
            source_link(scheme.head, readme) if scheme.head else "",
            file_link(get_config_file(scheme.config), readme),
            source_link(scheme.reference, readme),
            f"[{scheme.golden}](../../tests/data/{scheme.golden})",
            f"[{scheme.repository}](https://github.com/{scheme.repository})" if scheme.repository else "none",
        ]
        for scheme in get_schemes().values()
        if scheme.project == readme.parent.name
    ]
    return markdown(["scheme", "matcher", "losses", "head", "config", "dense form", "golden files", "weights"], rows)


def source_link(name: str, readme: Path) -> str:
    """A link from the object with a dotted name to its file."""
    found = load(name)
    return file_link(Path(inspect.getfile(found)), readme, found.__name__)


def file_link(file: Path, readme: Path, text: str | None = None) -> str:
    project = Path(__file__).resolve().parents[1] / "projects" / readme.parent.name
    target = Path(os.path.relpath(file.resolve(), project)).as_posix()
    return f"[{text or file.stem}]({target})"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [f"|{'|'.join(f' {cell} ' if cell else ' ' for cell in row)}|" for row in (header, *rows)]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]])


def column_header(column: str) -> str:
    kind, _, metric = column.partition(" ")
    return {"published": f"{metric}, published", "measured": f"{metric}, measured here"}.get(kind, column)


def cell(record: Record, column: str) -> str:
    kind, _, metric = column.partition(" ")
    if kind == "published":
        return f"{record.published[metric]:.1f}" if metric in record.published else "none"
    if kind == "measured":
        return f"{record.measured[metric]:.1f}" if metric in record.measured else "not measured"
    value = record.attributes.get(column, "")
    return "yes" if value is True else str(value)


def link(record: Record, readme: Path) -> str:
    project, _, config = record.name.partition("/")
    own = project == readme.parent.name
    target = f"configs/{config}.py" if own else f"../{project}/configs/{config}.py"
    name = config if own else record.name
    has_file = (Path(__file__).resolve().parents[1] / "projects" / project / "configs" / f"{config}.py").is_file()
    linked = f"[{name}]({target})" if has_file else name
    return linked + (f", {record.note}" if record.note else "")


def published_results(records: Iterable[Record]) -> str:
    """A table of published figures, and of the repositories whose weights should give them."""
    rows = [
        [
            record.name,
            ", ".join(f"{metric} {value:.1f}" for metric, value in record.published.items()),
            record.source if record.convertible else "none that can be converted",
        ]
        for record in records
        if record.published
    ]
    return markdown(["CONFIG", "published", "weights"], rows)


def measuring_commands(records: Iterable[Record]) -> str:
    """All commands that measure metrics, with $CONFIG for the config, and the metrics that each command gives."""
    metrics: dict[str, list[str]] = {}
    for record in records:
        for metric in ("AP", *record.measured):  # the other commands evaluate what the first one trains
            command = record.command(metric).replace(record.name, "$CONFIG")
            metrics.setdefault(command, []).append(metric)
    lines = [f"# {', '.join(dict.fromkeys(names))}\n{command}" for command, names in metrics.items()]
    return "\n".join(["<!-- not run: trains for minutes -->", "```bash", *lines, "```"])


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
