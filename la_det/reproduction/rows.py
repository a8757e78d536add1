"""Measures rows of the table, each by the commands that a user would give, and keeps a record of what was measured."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_origin, get_type_hints

from la_det.checkpoint.recipe import write_weights
from la_det.comparison.results import read_record, versions, write_record
from la_det.conversion.published import read_official
from la_det.data.sources import missing, parse
from la_det.engine.own_dataset import names_of_test_sets
from la_det.engine.setup import load_config
from la_det.errors import UserError, why_it_ended
from la_det.model_zoo.records import Record, is_number
from la_det.reproduction.recognise import printable, recognise
from la_det.reproduction.verdict import NOISY, SAME, expected, figures, judge

logger = logging.getLogger(__name__)

LA_DET = (sys.executable, "-m", "la_det")


@dataclass(frozen=True)
class Row:
    """A file or a training, and what was measured of it.

    Attributes:
        file: name of the file; "" for a training.
        key: hash of what decides the figures: the file's content, the config and all settings; "" if the config is not
            known.
        config: name of the config; "" if it is not known.
        by: what told the config, a few words.
        published: metric -> published figure, percent.
        commands: the commands that measured.
        results: task -> metric -> value, as `la-det eval` writes them; empty if nothing was measured.
        problem: why nothing was measured, one line; "" if something was.
        versions: versions of the packages that measured.
    """

    file: str
    key: str = ""
    config: str = ""
    by: str = ""
    published: dict[str, float] = field(default_factory=dict)
    commands: list[list[str]] = field(default_factory=list)
    results: dict[str, dict[str, float | None]] = field(default_factory=dict)
    problem: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the types, since a record may have been damaged.

        Raises:
            ValueError: a value has another type, or a result is no finite number; the message names it.
        """
        for name, hint in get_type_hints(Row).items():
            if not isinstance(getattr(self, name), get_origin(hint) or hint):
                raise ValueError(f"its {name}: {getattr(self, name)!r:.80}")
        for task, metrics in self.results.items():
            if not isinstance(metrics, dict) or not all(v is None or is_number(v) for v in metrics.values()):
                raise ValueError(f"its results of {task}: {metrics!r:.80}")

    @property
    def name(self) -> str:
        """A name for the files of a row whose config is known. It is the same for all files of the same content."""
        readable = re.sub(r"[^\w.-]+", "_", self.config, flags=re.ASCII)
        return f"{readable}-{self.key[:12]}"

    def measured_as(self, other: Row) -> Row:
        """This row with what was measured, or went wrong, for a row of the same key."""
        return replace(
            self, commands=other.commands, results=other.results, problem=other.problem, versions=other.versions
        )

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

    def data(self, config: str, training: bool) -> list[str]:
        """Names of the data sets that a config needs for its evaluation, and perhaps for its training."""
        if self.dataset:
            return list(map(str, parse(self.dataset)))
        cfg = load_config(config, [option for option in self.overrides if option.lstrip("+").startswith("dataloader.")])
        train = cfg.dataloader.train.dataset.names if training else []
        return [*([train] if isinstance(train, str) else train), *names_of_test_sets(cfg)]

    def options(self) -> list[str]:
        """The same for the command line."""
        return [*(["--dataset", self.dataset] if self.dataset else []), *self.overrides]


class Reproduction:
    """Measures rows. A row that was measured before, by the same settings, is not measured again.

    Only measured rows have a record. A row that failed is tried again by the next `Reproduction`. A row whose data are
    missing says so: neither is its file converted, nor a process started. Each data set is looked for once.

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
        self._looked_for: dict[str, str] = {}  # name of a data set -> what is missing

    def of_file(self, name: str, path: Path, config: str | None = None, allow_pickle: bool = False) -> Row:
        """The row of a published file, with its weights converted unless the row was measured before.

        Nothing is raised for a file that is unreadable, damaged or of an unknown model: the row says why.

        Args:
            name: the file's name in tables; its folders may help to recognise it.
            config: the config that the user says it is of.
            allow_pickle: read objects other than tensors too, which can run any code.
        """
        row = Row(name)
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            state = read_official(str(path), allow_pickle)
            found = recognise(name, state, self.records, config)
            key = self.settings.key("file", digest, found.fit.config)
            published = expected(self.records[found.fit.config], found.fit.repository)
            row = self._prepared(Row(name, key, found.fit.config, found.by, published))
            if not row.results and not row.problem:
                write_weights(self._weights(row), found.fit.weights(state), found.fit.recipe())
            return row
        except (UserError, OSError) as error:
            reason = str(error).removeprefix(f"{path}: ").removeprefix(f"{name}: ")
            return replace(row, problem=printable(" ".join(reason.split())))

    def of_training(self, config: str) -> Row:
        """The row of a config that is trained here."""
        key = self.settings.key("training", config)
        return self._prepared(Row("", key, config, published=expected(self.records[config])))

    def lacks_data(self, rows: Iterable[Row]) -> bool:
        """Whether none of the rows, of which there is one at least, has the data that it needs."""
        return all(row.problem and row.problem in self._looked_for.values() for row in rows)

    def measure(self, rows: Iterable[Row]) -> list[Row]:
        """The rows with their results. Rows of one key are measured once.

        A row that fails says why; the others go on.
        """
        rows = list(rows)
        waiting = {row.name: row for row in rows if not row.results and not row.problem}
        logger.info("%d rows, %d to measure", len(rows), len(waiting))
        start, measured = time.monotonic(), {}
        for number, row in enumerate(waiting.values(), start=1):
            name = printable(row.file or row.config)
            logger.info("%d of %d: %s, console in %s", number, len(waiting), name, self._console(row))
            measured[row.name] = done = self._measure(row)
            logger.info("%s: %s", row.config, done.verdict(self.records))
            if number < len(waiting):
                minutes = (time.monotonic() - start) / 60
                logger.info("%.1f min, about %.1f more", minutes, minutes / number * (len(waiting) - number))
        return [row.measured_as(measured[row.name]) if row.name in measured else row for row in rows]

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
            return replace(row, commands=commands, problem=str(error), versions=versions())
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
            reason = why_it_ended(status, console.read_text(errors="replace"))
            raise UserError(f"{reason} (la-det {command[0]}; console in {console})")

    def _prepared(self, row: Row) -> Row:
        """The row, with its results if it was measured before, or with the problem that its data are missing."""
        row = self._recall(row)
        if row.results:
            return row
        try:
            names = self.settings.data(row.config, training=not row.file)
        except UserError as error:
            return replace(row, problem=str(error))
        for name in names:
            if name not in self._looked_for:
                self._looked_for[name] = missing(name)
            if self._looked_for[name]:
                return replace(row, problem=self._looked_for[name])
        return row

    def _recall(self, row: Row) -> Row:
        """The row, with its results if it was measured before. A damaged record is as good as none."""
        file = self._file(row)
        if not file.exists():
            return row
        try:
            found = read_record(file, Row)
        except (UserError, OSError) as error:
            logger.warning("%s: damaged, so the row is measured again (%s)", file, error.__cause__ or error)
            return row
        return row.measured_as(found) if found.results else row

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
