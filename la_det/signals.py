"""Signals that end a training after the present step, with a checkpoint."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SAME = 0.3  # seconds within which two signals count as one: a launcher and a terminal may both pass it on


class Interrupted(BaseException):
    """A signal ends the process, with the exit status 128 + the signal's number."""

    def __init__(self, number: int, state: str = "") -> None:
        self.number = number
        self.message = f"stopped by {signal.Signals(number).name}" + (f" {state}" if state else "")
        super().__init__(self.message)


class StopSignals:
    """Handles signals that ask a process to stop: raises `Interrupted`, or only notes the signal while `deferred`.

    A second signal ends the process at once.

    Attributes:
        received: number of the signal; 0 for none.
    """

    def __init__(self) -> None:
        self.received = 0
        self._time = 0.0
        self._defer = False

    @contextmanager
    def handled(self, *names: str) -> Iterator[None]:
        """Handle the signals with these names inside the context. Only the main thread can do this."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.received = 0
        before = {number: signal.signal(number, self._receive) for number in (signal.Signals[name] for name in names)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self, defer: bool = True) -> Iterator[None]:
        """Only note a signal inside the context. With `defer` False, a signal raises as outside."""
        before, self._defer = self._defer, defer
        try:
            if not defer:
                self.check()
            yield
        finally:
            self._defer = before

    def check(self, state: str = "") -> None:
        """Raise `Interrupted` if a signal was received."""
        if self.received:
            raise Interrupted(self.received, state)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self.received:
            self.received, self._time = number, time.monotonic()
            if not self._defer:
                raise Interrupted(number)
        elif time.monotonic() - self._time > SAME:
            os._exit(128 + number)


stop_signals = StopSignals()


def leave_signals_to_parent(worker: int = 0) -> None:
    """Make a data loader's worker ignore signals to the whole process group, which the trainer handles.

    Only a SIGTERM from the trainer ends the worker. Only a thread that waits for the signal learns who sent it.
    """
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for_parent, args=(os.getppid(),), daemon=True).start()


def _wait_for_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid not in (parent, 0):
        pass
    os._exit(0)
