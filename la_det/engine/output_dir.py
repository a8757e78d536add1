"""What an output folder holds of a run: checkpoints, `config.yaml`, `log.txt` and Detectron2's `metrics.json`."""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from detectron2.utils import comm

from la_det.checkpoint.checkpointer import replacing
from la_det.errors import UserError

logger = logging.getLogger(__name__)

JOB = ".torchrun_job"
# Names of temporary files that writers of a run leave when they are killed: see `replacing` and `save_config`.
TEMPORARY = re.compile(r"\.(?:model_\w+\.pth|last_checkpoint|metrics\.json|config\.yaml)\.\d+")


class OutputDir:
    """The output folder of a training; one process writes it."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.metrics = self.folder / "metrics.json"

    @contextmanager
    def made(self) -> Iterator[None]:
        """Make the folder for the context. A new folder that is still empty at the end is removed."""
        is_new = not self.folder.is_dir()
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            yield
        finally:
            if is_new and comm.is_main_process():
                with suppress(OSError):  # it is not empty, or gone
                    self.folder.rmdir()

    def holds_run(self) -> bool:
        """Whether a training has left checkpoints or metrics here."""
        has_metrics = self.metrics.is_file() and self.metrics.stat().st_size > 0
        return has_metrics or any(self.folder.glob("model_*.pth")) or (self.folder / "last_checkpoint").is_file()

    def holds_trial(self) -> bool:
        """Whether the folder holds only a finished run of one iteration, made to try data and options."""
        iterations = [line["iteration"] for line in self.read_metrics()]
        return bool(iterations) and max(iterations) <= 1 and (self.folder / "model_final.pth").is_file()

    def note(self, job: str) -> None:
        """Write which job of torchrun the run is of; nothing if `job` is ""."""
        if job:
            (self.folder / JOB).write_text(job)

    def is_of(self, job: str) -> bool:
        """Whether this job of torchrun has begun the run, or has gone on with it."""
        file = self.folder / JOB
        return bool(job) and file.is_file() and file.read_text(errors="replace") == job

    def check_new(self) -> None:
        """Refuse to start a new run over another run, unless this is a trial, which a new run moves away."""
        if not self.holds_run():
            return
        if not self.holds_trial():
            raise UserError(
                f"{self.folder}: it holds a run; --resume goes on with it, train.output_dir=FOLDER leaves it alone, "
                "--overwrite starts anew and keeps it whole beside the new one"
            )
        self.check_movable()

    def check_movable(self) -> None:
        """Refuse to move a run in this folder if other runs lie below it, or if the command works in it."""
        if self.holds_run() and Path.cwd().is_relative_to(self.folder.resolve()):
            raise UserError(
                f"{self.folder}: a run in it cannot be moved away, because it is or holds the current folder; go to "
                "another folder, or choose another train.output_dir"
            )
        for below in self.folder.rglob("metrics.json"):
            if below.parent != self.folder:
                raise UserError(
                    f"{self.folder}: {below.parent.relative_to(self.folder)} in it is another run, which would be "
                    "moved away, too; choose another train.output_dir"
                )

    def move_away(self) -> Path:
        """Rename the folder and make an empty folder in its place. Return the new path of the old folder.

        Raises:
            UserError: the folder cannot be renamed. It is as it was.
        """
        folder = self.folder.resolve()  # not the link to it
        names = (folder.with_name(f"{folder.name}.old-{i}") for i in itertools.count(1))
        place = next(name for name in names if not name.exists())
        try:
            folder.rename(place)
        except OSError as error:  # such as a mount point
            raise UserError(
                f"{self.folder}: cannot rename it to {place.name} ({error.strerror}); choose another train.output_dir"
            ) from error
        folder.mkdir()
        return place

    def remove_temporary_files(self) -> None:
        """Remove the temporary files of writers that were killed."""
        for path in self.folder.glob(".*"):
            if path.is_file() and TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def start_at(self, start: int) -> None:
        """Prepare for a run that begins with iteration `start`: drop the metrics that this run writes again.

        Of iteration `start` only an evaluation is kept, the final evaluation of a finished run. If a run begins at 0
        and there are metrics of a run without checkpoints, they become `metrics.old.json`.
        """
        if not self.metrics.exists():
            return
        if start == 0:
            self.metrics.replace(self.folder / "metrics.old.json")
        else:
            kept = [line for line in self._lines() if _is_before(line, start)]
            with replacing(self.metrics) as file:
                file.write("".join(kept).encode())

    def has_line(self, iteration: int, with_losses: bool) -> bool:
        """Whether `metrics.json` has a line of this iteration: one with losses, or one without losses."""
        return any(
            line["iteration"] == iteration and ("total_loss" in line) == with_losses for line in self.read_metrics()
        )

    def read_metrics(self) -> list[dict[str, float]]:
        """The complete lines of `metrics.json`."""
        return [content for line in self._lines() if (content := _parse(line))]

    def _lines(self) -> list[str]:
        """The lines of `metrics.json`, with their ends. A damaged disk can leave bytes that are no text."""
        if not self.metrics.is_file():
            return []
        return self.metrics.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)


def _parse(line: str) -> dict[str, float] | None:
    try:
        content = json.loads(line)
    except json.JSONDecodeError:  # the last line of a killed run can be half written
        return None
    return content if isinstance(content, dict) and isinstance(content.get("iteration"), int) else None


def _is_before(line: str, start: int) -> bool:
    content = _parse(line)
    return content is not None and (
        content["iteration"] < start or (content["iteration"] == start and "total_loss" not in content)
    )
