"""The log of a run: on the console from the start, and in the output folder once this is known to be the run's."""

from __future__ import annotations

import logging
import sys
from logging.handlers import MemoryHandler
from pathlib import Path

from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from la_det.errors import UserError

LOGGERS = ("detectron2", "fvcore", "la_det")
FORMAT = "[%(asctime)s] %(name)s %(levelname)s: %(message)s"  # Detectron2's


class RunLog:
    """A context in which the project's and Detectron2's messages go to the console and, from `open` on, to a file."""

    def __enter__(self) -> RunLog:
        self._handler: logging.Handler = MemoryHandler(1_000_000, flushLevel=logging.CRITICAL + 1)
        for name in LOGGERS:
            setup_logger(distributed_rank=comm.get_rank(), name=name).addHandler(self._handler)
        return self

    def open(self, folder: str | Path) -> None:
        """Append all earlier and later messages to `log.txt` in the folder; each process has a file of its own."""
        rank = comm.get_rank()
        file = _LogFile(Path(folder, f"log.txt.rank{rank}" if rank else "log.txt"))
        file.setFormatter(logging.Formatter(FORMAT, datefmt="%m/%d %H:%M:%S"))
        held = self._handler
        held.setTarget(file)
        held.flush()
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(held)
            logging.getLogger(name).addHandler(file)
        self._handler = file

    def __exit__(self, *exception: object) -> None:
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(self._handler)
        if isinstance(self._handler, MemoryHandler):
            self._handler.buffer.clear()
        self._handler.close()


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        raise UserError(
            f"{self.baseFilename}: cannot write the log ({error.strerror}); free some space, and go on with --resume"
        ) from error
