"""Measures rows of the table, each by the commands that a user would give, and keeps a record of each."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from la_det.checkpoint.recipe import write_weights
from la_det.comparison.results import read_record, versions, write_record
from la_det.conversion.published import read_official
from la_det.errors import UserError
from la_det.model_zoo.records import Record
from la_det.reproduction.recognise import recognise
from la_det.reproduction.verdict import NOISY, SAME, expected, figures, judge

logger = logging.getLogger(__name__)

LA_DET = (sys.executable, "-m", "la_det")


@dataclass(frozen=True)
class Row:
    """A file or a training, and what was measured of it.

    Attributes:
        file: name of the file; "" for a training.
        key: hash of the file's content and of all settings.
        config: name of the config; "" if it is not known.
        by: what told the config, a few words.
        published: metric -> published figure, percent.
        commands: the commands that measured.
        results: task -> metric -> value, as `la-det eval` writes them; empty if nothing was measured.
        problem: why nothing was measured, one line; "" if something was.
        versions: versions of the packages that measured.
    """

    file: str
    key: str
    config: str = ""
    by: str = ""
    published: dict[str, float] = field(default_factory=dict)
    commands: list[list[str]] = field(default_factory=list)
    results: dict[str, dict[str, float | None]] = field(default_factory=dict)
    problem: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A name for the row's files."""
        readable = re.sub(r"[^\w.-]+", "_", self.file or self.config)
        return f"{readable[-80:]}-{self.key[:12]}"

    def verdict(self, records: Mapping[str, Record]) -> str:
        """`la_det.reproduction.verdict.judge`'s, or the problem."""
        return self.problem or judge(records[self.config], self.published, figures(self.results))


@dataclass(frozen=True)
class Settings:
    """What decides the figures of a row besides its file.

    Attributes:
        dataset: data in a form of `la_det.data.sources` in place of the config's.
        overrides: options `key=value` of the configs.
    """

    dataset: str | None = None
    overrides: tuple[str, ...] = ()

    def key(self, *of_row: str) -> str:
        """The hash of a row's own facts and of these settings."""
        facts = [*of_row, self.dataset, *self.overrides]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def options(self) -> list[str]:
        """The same for the command line."""
        return [*(["--dataset", self.dataset] if self.dataset else []), *self.overrides]


class Reproduction:
    """Measures rows. A row that was measured before, by the same settings, is not measured again.

    Args:
        records: configs and their published figures.
        output: folder of the records (`rows/`), of converted weights (`weights/`) and of the runs (`runs/`).
        settings: settings of all rows.
        num_gpus: processes of a command, each with a GPU (or CPU).
        command: the command that trains and evaluates, without its subcommand; by default `la-det`.
    """

    def __init__(
        self,
        records: Mapping[str, Record],
        output: Path,
        settings: Settings,
        num_gpus: int = 1,
        command: Sequence[str] | None = None,
    ) -> None:
        self.records = records
        self.output = output
        self.settings = settings
        self.num_gpus = num_gpus
        self.command = LA_DET if command is None else command

    def of_file(self, name: str, path: Path, config: str | None = None, allow_pickle: bool = False) -> Row:
        """The row of a published file, with its weights converted unless the row was measured before.

        Nothing is raised for a file that is unreadable, damaged or of an unknown model: the row says why.

        Args:
            name: the file's name in tables; its folders may help to recognise it.
            config: the config that the user says it is of.
            allow_pickle: read objects other than tensors too, which can run any code.
        """
        row = Row(name, "")
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            row = replace(row, key=self.settings.key("file", digest))
            state = read_official(str(path), allow_pickle)
            found = recognise(name, state, self.records, config)
            row = replace(
                row,
                config=found.fit.config,
                by=found.by,
                published=expected(self.records[found.fit.config], found.fit.repository),
            )
            done = self._measured(row)
            if done is None:
                write_weights(self._weights(row), found.fit.weights(state), found.fit.recipe())
            return done or row
        except (UserError, OSError) as error:
            problem = " ".join(str(error).split()).removeprefix(f"{path}: ").removeprefix(f"{name}: ")
            row = replace(row, problem=problem)
            write_record(self._file(row), row)
            return row

    def of_training(self, config: str) -> Row:
        """The row of a config that is trained here."""
        row = Row("", self.settings.key("training", config), config, "", expected(self.records[config]))
        return self._measured(row) or row

    def measure(self, rows: Iterable[Row]) -> list[Row]:
        """The rows with their results. A row that fails says why; the others go on."""
        rows = list(rows)
        waiting = [row for row in rows if not row.results and not row.problem]
        logger.info("%d rows, %d to measure", len(rows), len(waiting))
        start, measured = time.monotonic(), {}
        for number, row in enumerate(waiting, start=1):
            logger.info("%d of %d: %s, console in %s", number, len(waiting), row.file or row.config, self._console(row))
            measured[row.name] = done = self._measure(row)
            logger.info("%s: %s", row.config, done.verdict(self.records))
            if number < len(waiting):
                minutes = (time.monotonic() - start) / 60
                logger.info("%.1f min, about %.1f more", minutes, minutes / number * (len(waiting) - number))
        return [measured.get(row.name, row) for row in rows]

    def _measure(self, row: Row) -> Row:
        run, common = self.output / "runs" / row.name, ["--num-gpus", str(self.num_gpus), *self.settings.options()]
        weights, commands = self._weights(row), []
        if not row.file:
            weights = run / "model_final.pth"
            commands.append(["train", row.config, "--resume", "--output", str(run), *common])
        commands.append(["eval", row.config, str(weights), "--output", str(run), *common])
        try:
            for command in commands:
                self._call(command, self._console(row))
            results = _read_results(run / "evaluation" / weights.stem / "results.json")
        except UserError as error:
            done = replace(row, commands=commands, problem=str(error), versions=versions())
        else:
            done = replace(row, commands=commands, results=results, versions=versions())
        write_record(self._file(row), done)
        return done

    def _call(self, command: Sequence[str], console: Path) -> None:
        """Run a command of la-det. Its error is the last line that it has printed."""
        console.parent.mkdir(parents=True, exist_ok=True)
        with console.open("a") as output:
            process = subprocess.Popen([*self.command, *command], stdout=output, stderr=subprocess.STDOUT)
        try:
            status = process.wait()
        finally:
            process.terminate()  # does nothing to a process that has ended
            process.wait()
        if status:
            last = (console.read_text(errors="replace").splitlines() or ["it printed nothing"])[-1]
            reason = last.removeprefix("error: ") if status > 0 else f"ended by {signal.Signals(-status).name}"
            raise UserError(f"{reason} (la-det {command[0]}; console in {console})")

    def _measured(self, row: Row) -> Row | None:
        """The row's record with results, if there is one."""
        file = self._file(row)
        if not file.exists():
            return None
        found = read_record(file, Row)
        same = (found.key, found.config) == (row.key, row.config)
        return replace(found, by=row.by, published=row.published) if same and found.results else None

    def _file(self, row: Row) -> Path:
        return self.output / "rows" / f"{row.name}.json"

    def _weights(self, row: Row) -> Path:
        return self.output / "weights" / f"{row.name}.safetensors"

    def _console(self, row: Row) -> Path:
        return self.output / "runs" / f"{row.name}.console.txt"


def _read_results(file: Path) -> dict[str, dict[str, float | None]]:
    """Task -> metric -> value, without the metrics of single classes.

    Raises:
        UserError: there is no AP.
    """
    tasks = {task: values for task, values in json.loads(file.read_text()).items() if isinstance(values, dict)}
    results = {task: {k: v for k, v in values.items() if "-" not in k} for task, values in tasks.items()}
    if not figures(results):
        raise UserError(f"{file}: it has no AP; evaluate on one data set that has annotations")
    return results


def all_reproduced(rows: Iterable[Row], records: Mapping[str, Record]) -> bool:
    """Whether every row's figures are as published, or within the noise of trainings."""
    return all(row.verdict(records) in (SAME, NOISY) for row in rows)
