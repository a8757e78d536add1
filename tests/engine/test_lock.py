import os
import socket
import subprocess
import sys
import time

import pytest

from la_det.engine import lock as module
from la_det.engine.lock import RunLock
from la_det.errors import UserError


def holder(folder, host: str, pid: int) -> None:
    """What a training on another machine, or a dead one on this, has left."""
    lines = ["filelock soft lock", f"pid={pid}", f"host={host}", "mode=lease", "token=abc", "duration=120.0"]
    with RunLock(folder).held():
        first = (folder / ".lock").read_text().splitlines()[0]
    (folder / ".lock").write_text("\n".join([first, *lines[1:]]) + "\n")


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_one_at_a_time(tmp_path):
    with RunLock(tmp_path).held() as first:
        assert not first.lost
        with pytest.raises(
            UserError, match=rf"a training runs in it \(process {os.getpid()} on {socket.gethostname()}"
        ):
            RunLock(tmp_path).acquire()
    assert not list(tmp_path.iterdir())
    with RunLock(tmp_path).held():
        pass


def test_of_a_dead_process_here(tmp_path):
    holder(tmp_path, socket.gethostname(), dead_process())
    with RunLock(tmp_path).held() as lock:
        assert not lock.lost and f"pid={os.getpid()}" in (tmp_path / ".lock").read_text()


def test_elsewhere_without_a_heartbeat(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WITHOUT_HEARTBEAT", 1.0)
    monkeypatch.setattr(module, "HEARTBEAT", 0.3)
    monkeypatch.setattr(module, "POLL", 0.1)
    holder(tmp_path, "elsewhere", 1)
    (tmp_path / ".lock").write_text((tmp_path / ".lock").read_text().replace("120.0", "1.0"))
    start = time.monotonic()
    with RunLock(tmp_path).held():
        assert 0.9 < time.monotonic() - start < 5


def test_elsewhere_with_a_heartbeat(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "POLL", 0.05)
    holder(tmp_path, "elsewhere", 1)
    beats = iter(range(9))
    monkeypatch.setattr(RunLock, "_beat", lambda self: next(beats))
    with pytest.raises(UserError, match="process 1 on elsewhere"):
        RunLock(tmp_path).acquire()


def test_broken_lock_is_noticed_before_a_write(tmp_path):
    with RunLock(tmp_path).held() as old:
        old.check()
        with RunLock(tmp_path).held(break_lock=True) as new:
            new.check()
            with pytest.raises(UserError, match=rf"{tmp_path}: a training on .* has taken its place"):
                old.check()
        with pytest.raises(UserError, match=rf"{tmp_path}: .lock in it is gone"):
            old.check()
    RunLock(tmp_path).check()  # as in the processes that never had it


def test_lock_that_cannot_be_read_is_held(tmp_path, monkeypatch):
    """On a shared disk that fails for a moment."""
    with RunLock(tmp_path).held() as lock:
        monkeypatch.setattr(RunLock, "_holder", lambda self: {})
        lock.check()


def test_broken_lock_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT", 0.1)
    with RunLock(tmp_path).held() as old:
        with RunLock(tmp_path).held(break_lock=True):
            wait_until(lambda: old.lost)
            assert "has taken its place" in old.lost


def test_folder_that_vanishes_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT", 0.1)
    folder = tmp_path / "out"
    folder.mkdir()
    with RunLock(folder).held() as lock:
        (folder / ".lock").unlink()
        folder.rmdir()
        wait_until(lambda: lock.lost)
        assert lock.lost == "the folder is gone"


def wait_until(condition) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
