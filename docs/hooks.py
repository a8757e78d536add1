"""What the site has beside docs/: pages made of files elsewhere in the repository, and links that lead to them.

All Markdown files link to each other, to sources and to pictures by relative paths, as GitHub understands them. Here
every such link becomes a link of the site. A link to a file that does not exist is a warning, and so `make docs` fails.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# Files outside of docs/ that are pages -> their place in the site.
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "README.md": "index.md"} | {
    f"projects/{readme.parent.name}/README.md": f"schemes/{readme.parent.name}.md"
    for readme in ROOT.glob("projects/*/README.md")
}
ORIGIN = {page: file for file, page in PAGES.items() if file != "README.md"}  # docs/index.md is the site's front page
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
CODE = re.compile(r"^(```.*?^```|~~~.*?^~~~)", re.MULTILINE | re.DOTALL)
DOCUMENTED = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)
NOT_SEARCHED = "---\nsearch:\n  exclude: true\n---\n\n"
LANGUAGES = {".py": "python", ".yaml": "yaml", ".txt": "text", ".json": "json"}
LOADED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\"'\s>]+)")

logger = logging.getLogger("mkdocs.hooks.la_det")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of other files, and one page for each source file that some page links to."""
    for page, file in ORIGIN.items():
        files.append(File.generated(config, page, content=(ROOT / file).read_text()))
    documented = modules()
    for file in sorted({target for page in files.documentation_pages() for target in sources(page, documented)}):
        language = LANGUAGES.get(Path(file).suffix, "text")
        text = (
            f"---\nsearch:\n  exclude: true\n---\n\n# {file}\n\n``````{language}\n{(ROOT / file).read_text()}\n``````\n"
        )
        files.append(File.generated(config, source_page(file), content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its links turned into links of the site."""
    if page.file.src_uri.startswith("source/"):
        return markdown
    documented = modules()

    def turned(link: re.Match) -> str:
        mark, text, address = link.groups()
        path, anchor = address.partition("#")[::2]
        if not path or ":" in path:
            return link[0]
        target = resolve(page.file.src_uri, path)
        if not (ROOT / target).exists():
            logger.warning("%s: link to %s, which does not exist", origin(page.file.src_uri), address)
            return link[0]
        place = place_of(target, documented)
        if place is None:
            return text  # a folder
        place, _, own_anchor = place.partition("#")
        anchor = anchor or own_anchor
        relative = os.path.relpath(place, Path(page.file.src_uri).parent)
        return f"{mark}[{text}]({relative}{'#' * bool(anchor)}{anchor})"

    return "".join(
        part if part.startswith(("```", "~~~")) else LINK.sub(turned, part) for part in CODE.split(markdown) if part
    )


def on_post_build(config: MkDocsConfig) -> None:
    """Raises an error if some page loads something from elsewhere."""
    for file in sorted(Path(config.site_dir).rglob("*.html")):
        for element in LOADED.finditer(file.read_text()):
            if 'rel="canonical"' not in element[0]:
                raise PluginError(f"{file}: the page loads {element[1]}")


def modules() -> dict[str, str]:
    """Source file of each module in the API reference -> its place, with anchor."""
    found = {}
    for page in sorted((ROOT / "docs/api").glob("*.md")):
        for name in DOCUMENTED.findall(page.read_text()):
            file = name.replace(".", "/")
            found[f"{file}/__init__.py" if (ROOT / file).is_dir() else f"{file}.py"] = f"api/{page.name}#{name}"
    return found


def origin(page: str) -> str:
    """The repository's file that a page is made of."""
    return ORIGIN.get(page, f"docs/{page}")


def resolve(page: str, path: str) -> str:
    """The file, relative to the repository's root, that a page's relative link names."""
    return os.path.normpath(Path(origin(page)).parent / path)


def source_page(file: str) -> str:
    """The page that shows a source file."""
    return f"source/{file}.md"


def place_of(target: str, documented: dict[str, str]) -> str | None:
    """Where the site has a file of the repository; None for folders that are no project."""
    readme = f"{target}/README.md"
    if target in PAGES or readme in PAGES:
        return PAGES.get(target) or PAGES[readme]
    if target in documented:
        return documented[target]
    if (ROOT / target).is_dir():
        return None
    in_site = target.startswith("docs/") and Path(target).suffix in (".md", ".png", ".jpg")
    return target.removeprefix("docs/") if in_site else source_page(target)


def sources(page: File, documented: dict[str, str]) -> set[str]:
    """The source files that a page links to."""
    text = CODE.sub("", page.content_string)
    paths = {link[2].partition("#")[0] for link in LINK.findall(text)}
    targets = {resolve(page.src_uri, path) for path in paths if path and ":" not in path}
    existing = {target for target in targets if (ROOT / target).is_file()}
    return {target for target in existing if place_of(target, documented) == source_page(target)}
