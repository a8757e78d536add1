"""The problems of a data set, counted by kind; messages name the first of each kind."""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from la_det.errors import UserError

logger = logging.getLogger(__name__)

NAMED = 3  # number of records of a kind that a message names
KINDS_IN_ERROR = 3  # number of kinds that an error names; `la-det check-data` lists all

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 60
_repr.maxlist = 5


def show(value: object) -> str:
    """A value as short, printable text of one line, for a message."""
    return _repr.repr(value).replace("\n", " ")


@dataclass(frozen=True)
class Problem:
    """All records of a source that are wrong in the same way.

    Attributes:
        kind: what is wrong, and what was done or is to be done about it.
        count: number of records.
        examples: the first records, each with its place in the file, field and value.
        fatal: whether the source cannot be used.
        dropped: number of annotations that were left out.
    """

    kind: str
    count: int
    examples: tuple[str, ...]
    fatal: bool
    dropped: int = 0

    def __str__(self) -> str:
        more = f" [and {self.count - 1} more: {', '.join(self.examples[1:])}]" if self.count > 1 else ""
        return f"{self.examples[0]}: {self.kind}{more}"


class Problems:
    """Collects the problems of one source.

    Args:
        source: the file or folder that messages begin with.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.found: list[Problem] = []

    def stop(self, rows: Sequence[int], describe: Callable[[int], str], kind: str) -> None:
        """Note records that make the source useless: `check` then raises. Without `rows`, nothing happens."""
        self._add(rows, describe, kind, fatal=True)

    def drop(self, rows: Sequence[int], describe: Callable[[int], str], kind: str) -> None:
        """Note annotations that are left out."""
        self._add(rows, describe, kind, dropped=len(rows))

    def note(self, rows: Sequence[int], describe: Callable[[int], str], kind: str) -> None:
        """Note records that are used although something about them is odd."""
        self._add(rows, describe, kind)

    def _add(
        self, rows: Sequence[int], describe: Callable[[int], str], kind: str, fatal: bool = False, dropped: int = 0
    ) -> None:
        if len(rows):
            examples = tuple(describe(int(row)) for row in rows[:NAMED])
            self.found.append(Problem(kind, len(rows), examples, fatal, dropped))

    def check(self) -> None:
        """Raise `UserError` if something found so far makes the source useless."""
        fatal = [problem for problem in self.found if problem.fatal]
        if fatal:
            more = len(fatal) - KINDS_IN_ERROR
            rest = f" | and {more} more kinds of problems" if more > 0 else ""
            raise UserError(f"{self.source}: {' | '.join(map(str, fatal[:KINDS_IN_ERROR]))}{rest}")

    def log(self) -> None:
        """Warn of the problems found, in one line for each kind."""
        for problem in self.found:
            logger.warning("%s: %s", self.source, problem)
