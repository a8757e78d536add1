"""The error that a command shows as one line."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

OUTPUT_ERRORS = frozenset(
    {errno.EACCES, errno.EEXIST, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR}
)


class UserError(Exception):
    """Something outside the program is wrong: the message names the file or record and says what to do."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn a `UserError`, and an output folder that cannot be written, into one line on stderr and exit status 2."""
    # Detectron2's training loop logs the traceback of whatever ends it.
    logging.getLogger("detectron2.engine.train_loop").addFilter(_is_no_user_error)
    try:
        yield
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno not in OUTPUT_ERRORS:
            raise
        _fail(f"{error.filename or 'output'}: {error.strerror}; choose another output folder or free some space")


def _fail(message: str) -> None:
    # torch's data loader puts its worker's traceback before the message of an exception it passes on.
    line = message.strip().splitlines()[-1].removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")
    print(f"error: {line}", file=sys.stderr, flush=True)
    sys.exit(2)


def _is_no_user_error(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], UserError))
