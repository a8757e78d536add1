"""Ending a training by a signal: after the step, with a checkpoint."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SAME = 0.3  # seconds within which a launcher and a terminal may both pass on one signal


class Interrupted(BaseException):
    """A signal ends the process, whose exit status is then 128 + its number."""

    def __init__(self, number: int, state: str = "") -> None:
        self.number = number
        self.message = f"stopped by {signal.Signals(number).name}" + (f" {state}" if state else "")
        super().__init__(self.message)


class StopSignals:
    """Handles signals that ask a process to stop: raises `Interrupted`, or notes it where that is `deferred`.

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
        """Handle the signals of these names inside the context. Only a main thread can."""
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
        """Only note a signal inside the context; `defer` False raises, as outside."""
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
    """For a data loader's worker: a signal for the whole process group is the trainer's to handle.

    Only a SIGTERM from the trainer itself ends the worker. Who sent it, only a waiting thread is told.
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
