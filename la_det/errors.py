"""The error that a command shows as one line."""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

OUTPUT_ERRORS = frozenset(
    {errno.EACCES, errno.EEXIST, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EFBIG}
)
STDOUT = 1  # file descriptor
LOST_PROCESS = "lost the connection to another process of the training, which has died"
# Errors of libraries whose cause lies outside the program: a pattern, and the message.
_KNOWN = (
    (
        r"DataLoader worker \(pid[^)]*\) (?:is killed by|exited|died).*",
        "{}; if memory is short, lower dataloader.train.num_workers; then go on with --resume",
    ),
    (r"EADDRINUSE|[Aa]ddress already in use", "--dist-url: this port is in use; give another one, or auto"),
    (
        r"Connection (?:reset|closed|refused)|Broken pipe|Socket (?:Timeout|closed)|[Rr]emote process exited"
        r"|NCCL communicator was aborted|Application timeout caused",
        f"{LOST_PROCESS}; go on with --resume",
    ),
)


class UserError(Exception):
    """An error whose cause lies outside the program. The message names the file or record and says what to do."""


def explain(error: BaseException) -> str:
    """A message of one line for an error whose cause lies outside the program; "" for any other error."""
    if isinstance(error, UserError):
        # torch's data loader puts the worker's traceback before the message of an exception that it passes on.
        return str(error).strip().splitlines()[-1].removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")
    if isinstance(error, ModuleNotFoundError) and error.name == "detectron2":
        return str(error)
    # torch is not imported here: `la-det --help` and `la-det doctor` do without it.
    if isinstance(error, getattr(sys.modules.get("torch"), "OutOfMemoryError", ())):
        return "the GPU's memory is full; lower dataloader.train.total_batch_size, or set train.amp.enabled=True"
    if isinstance(error, OSError) and error.errno in OUTPUT_ERRORS:
        return f"{error.filename or 'output'}: {error.strerror}; choose another output folder or free some space"
    if isinstance(error, (RuntimeError, OSError)):
        for pattern, message in _KNOWN:
            found = re.search(pattern, str(error))
            if found:
                return message.format(found[0].rstrip(". "))
    return ""


def why_it_ended(status: int, printed: str) -> str:
    """The reason for which a command of la_det failed, one line: the last line that it printed, or a signal.

    Args:
        status: its exit status; negative for the number of a signal.
        printed: what it printed.
    """
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    lines = printed.splitlines()
    return lines[-1].removeprefix("error: ") if lines else "it printed nothing"


@contextmanager
def one_line_errors(speaks: Callable[[str], bool] = lambda line: True) -> Iterator[None]:
    """Turn an error with an explanation (see `explain`) into one line on stderr and exit status 2.

    If nobody reads stdout any more, as in `la-det zoo list | head -1`, the process ends quietly with exit status 141.

    Args:
        speaks: whether this process prints a line, rather than another process that failed for the same reason.
    """
    show = threading.excepthook
    # TensorBoard's thread passes errors of writing on to the main thread.
    threading.excepthook = lambda args: None if isinstance(args.exc_value, OSError) else show(args)
    try:
        yield
        print(end="", flush=True)  # an error at the interpreter's exit could not be handled
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_unread():
            sys.exit(128 + signal.SIGPIPE)
        message = explain(error)
        if not message:
            raise
        if speaks(message):
            print(f"error: {message}", file=sys.stderr, flush=True)
        sys.exit(2)
    finally:
        threading.excepthook = show
        if _is_unread():
            os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)


def _is_unread() -> bool:
    """Whether stdout is a pipe whose reader has ended."""
    poll = select.poll()
    poll.register(STDOUT, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
