"""One training per output folder."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detectron2.utils import comm
from filelock import SoftFileLease, Timeout

from la_det.errors import UserError

logger = logging.getLogger(__name__)

NAME = ".lock"
WITHOUT_HEARTBEAT = 120.0  # seconds after which a holder on another machine counts as dead
HEARTBEAT = 10.0  # seconds
POLL = 2.0


class RunLock:
    """A lock file in the output folder: it names host and process, and its holder touches it every ten seconds.

    From a dead process of this machine the lock is taken over at once, from any other process after two minutes without
    a heartbeat. Clocks of two machines are never compared, so the lock works on shared folders.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._lease = SoftFileLease(
            self.path, lease_duration=WITHOUT_HEARTBEAT, heartbeat_interval=HEARTBEAT, thread_local=False
        )

    @contextmanager
    def held(self, break_lock: bool = False) -> Iterator[RunLock]:
        """Hold the lock inside the context; the main process holds it for all processes."""
        if comm.is_main_process():
            self.acquire(break_lock)
        try:
            yield self
        finally:
            self.release()

    def acquire(self, break_lock: bool = False) -> None:
        """Take the lock.

        Args:
            break_lock: take the lock also from a running training, which then stops before its next write.

        Raises:
            UserError: another training has the lock.
        """
        if break_lock:
            self.path.unlink(missing_ok=True)
        last_beat = self._beat()
        while True:
            try:
                self._lease.acquire(timeout=0)
                return
            except Timeout:
                holder = self._holder()
            if holder.get("host") == socket.gethostname() or self._beat() not in (last_beat, None):
                raise UserError(
                    f"{self.path.parent}: a training runs in it (process {holder.get('pid')} on {holder.get('host')}); "
                    "wait for it, stop it, or choose another train.output_dir; --break-lock takes its place"
                )
            logger.warning(
                "%s: process %s on %s has the lock; waiting %g s for its heartbeat",
                self.path.parent,
                holder.get("pid"),
                holder.get("host"),
                WITHOUT_HEARTBEAT,
            )
            self._wait(last_beat)

    def _wait(self, last_beat: int | None) -> None:
        """Wait until the lock is free or its holder has shown a heartbeat."""
        end = time.monotonic() + WITHOUT_HEARTBEAT + HEARTBEAT
        while time.monotonic() < end and self._beat() == last_beat:
            try:
                self._lease.acquire(timeout=0)
            except Timeout:
                time.sleep(POLL)
            else:
                self._lease.release()
                return

    def release(self) -> None:
        """Give the lock back, if it is still held."""
        self._lease.release(force=True)

    @property
    def lost(self) -> str:
        """Why the lock is no longer held: the folder is gone, or another training has it. "" while it is held."""
        if self._lease.compromise is None:
            return ""
        return self._loss(self._holder())

    def check(self) -> None:
        """Look at the lock file before something is written: the heartbeat notices a loss only after 20 seconds.

        A folder that is gone passes, since the writer's own error says what to do.

        Raises:
            UserError: this process had the lock and has lost it.
        """
        if self._lease.token is None or not self.path.parent.is_dir():
            return
        holder = self._holder()
        if holder.get("token") != self._lease.token and (holder or not self.path.exists()):
            raise UserError(f"{self.path.parent}: {self._loss(holder)}; this training ends")

    def _loss(self, holder: dict[str, str]) -> str:
        if holder:
            return f"a training on {holder.get('host')} (process {holder.get('pid')}) has taken its place"
        return f"{NAME} in it is gone" if self.path.parent.is_dir() else "the folder is gone"

    def _beat(self) -> int | None:
        try:
            return self.path.stat().st_mtime_ns
        except OSError:
            return None

    def _holder(self) -> dict[str, str]:
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            return {}
        return dict(line.partition("=")[::2] for line in lines if "=" in line)
