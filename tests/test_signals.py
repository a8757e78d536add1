import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from la_det.signals import Interrupted, StopSignals

ROOT = str(Path(__file__).parents[2])


def test_signal_ends_or_is_noted():
    signals, before = StopSignals(), signal.getsignal(signal.SIGUSR1)
    with signals.handled("SIGUSR1"):
        with signals.deferred():
            os.kill(os.getpid(), signal.SIGUSR1)
            assert signals.received == signal.SIGUSR1
            with pytest.raises(Interrupted, match="stopped by SIGUSR1 here"):
                signals.check("here")
            with pytest.raises(Interrupted), signals.deferred(False):
                pass
    with signals.handled("SIGUSR1"), pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) == before


def test_second_signal_ends_at_once():
    code = (
        "import os, signal, time; from la_det.signals import StopSignals\n"
        "s = StopSignals()\n"
        "with s.handled('SIGTERM'), s.deferred():\n"
        "    os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.4)\n"
        "    print('once', flush=True); os.kill(os.getpid(), signal.SIGTERM); time.sleep(9); print('late')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": ROOT}, stdout=subprocess.PIPE)
    assert done.returncode == 143 and done.stdout == b"once\n"


def test_worker_ends_by_its_parent_only():
    code = (
        "import time; from la_det.signals import leave_signals_to_parent\n"
        "leave_signals_to_parent(); print('ready', flush=True); time.sleep(30)\n"
    )
    environment = os.environ | {"PYTHONPATH": ROOT}
    worker = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    worker.stdout.readline()
    for name in ("INT", "USR1", "TERM"):
        subprocess.run(["sh", "-c", f"kill -{name} {worker.pid}"], check=True)
    time.sleep(0.5)
    assert worker.poll() is None
    worker.terminate()
    assert worker.wait(5) == 0
