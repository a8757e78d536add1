"""The fenced blocks of all documents, and the commands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    file
    for pattern in ("README.md", "CONTRIBUTING.md", "docs/*.md", "docs/api/*.md", "projects/*/README.md")
    for file in ROOT.glob(pattern)
)
FENCE = re.compile(r"(?:^<!-- (?P<note>[^\n]+) -->\n\n?)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
NOT_RUN, SLOW = "not run: ", "run by a slow test"
ASSIGNMENT = re.compile(r"(\w+)=(.*)")
CONTROL = {"&", "&&", "|", "||", ";", ">", "<"}


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        file: the document.
        line: number of the line with the fence, from 1.
        language: what follows the fence's backticks.
        text: the lines between the fences.
        note: the comment before the block: why it is not run, or that a slow test runs it.
    """

    file: Path
    line: int
    language: str
    text: str
    note: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}"

    @property
    def is_run(self) -> bool:
        return not self.note.startswith(NOT_RUN)


def blocks(*languages: str) -> list[Block]:
    """All blocks in these languages, or in any language."""
    found = []
    for file in DOCUMENTS:
        text = file.read_text()
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start("language")) + 1
            found.append(Block(file, line, match["language"], match["text"], match["note"] or ""))
    return [block for block in found if not languages or block.language in languages]


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a shell block, with the values of variables that the document sets before."""
    variables: dict[str, str] = {}
    found: list[list[str]] = []
    earlier = [b for b in blocks("bash") if b.file == block.file and b.line < block.line]
    for each in (*earlier, block):
        found = []
        for line in each.text.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
            lexer.whitespace_split = True
            words: list[str] = []
            for word in [*_expanded(list(lexer), variables), ";"]:
                if word not in CONTROL:
                    words.append(word)
                elif words:
                    if len(words) == 1 and (assignment := ASSIGNMENT.fullmatch(words[0])):
                        variables[assignment[1]] = assignment[2]
                    found.append(words)
                    words = []
    return found


def _expanded(words: list[str], variables: dict[str, str]) -> list[str]:
    expanded = []
    for word in words:
        if word.removeprefix("$") in variables and word.startswith("$"):  # unquoted: several words
            expanded += variables[word[1:]].split()
        else:
            expanded.append(re.sub(r"\$(\w+)", lambda name: variables.get(name[1], name[0]), word))
    return expanded


def of_this_project(words: list[str]) -> tuple[str, list[str]] | None:
    """The program (`la_det` or a file in tools/) and the arguments of a command; None for other programs."""
    for i, word in enumerate(words):
        if word == "la-det" or (word == "la_det" and i and words[i - 1] == "-m"):
            return "la_det", words[i + 1 :]
        if re.fullmatch(r"tools/\w+\.py", word):
            return word, words[i + 1 :]
    return None
