"""The script for a short time on a GPU: what it starts, and how it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import compare_gpu
from la_det.errors import UserError

TOOLS = Path(compare_gpu.__file__).parent
# A command that starts another one, which leaves a file if it is not stopped within three seconds.
ENDLESS = """#!{python}
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3); open({late!r}, 'w')"])
open({started!r}, "w")
time.sleep(60)
"""


def run_main(monkeypatch, tmp_path, compare) -> float:
    """Run the script with another `compare`; the time of its start."""
    monkeypatch.setattr(compare_gpu, "compare", compare)
    arguments = ["--schemes", "poto", "dw", "--at-once", "3", "--seconds", "100", "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["compare_gpu.py", *arguments])
    handler, start = signal.getsignal(signal.SIGTERM), time.monotonic()
    try:
        compare_gpu.main()
    finally:
        signal.signal(signal.SIGTERM, handler)
    return start


def test_it_measures_costs_then_trains_then_reports(monkeypatch, tmp_path):
    calls = []
    start = run_main(monkeypatch, tmp_path, lambda *arguments: not calls.append(arguments))
    (trained, *cost), (training_end, *run), (end, *report) = calls
    assert trained == training_end
    assert start + 70 < trained < end - compare_gpu.FOR_REPORT < start + 90
    assert cost[0] == "cost"
    assert {"poto", "dw", *compare_gpu.DETECTRON2} <= set(cost)
    assert run[0] == "run"
    assert run.count("0") == 3  # the same GPU three times
    assert report == ["report", "--results", tmp_path]


@pytest.mark.parametrize("failing", [("cost",), ("run",), ("cost", "run"), ("report",)])
def test_a_failure_stops_nothing_else_and_is_said(monkeypatch, tmp_path, failing):
    calls = []

    def compare(end, name, *options):
        calls.append(name)
        return name not in failing

    with pytest.raises(UserError, match=f"compare {', '.join(failing)}: failed, see above"):
        run_main(monkeypatch, tmp_path, compare)
    assert calls == ["cost", "run", "report"]


@pytest.fixture
def endless(tmp_path) -> Path:
    """A "Python" that does not end."""
    script = tmp_path / "python"
    paths = {name: str(tmp_path / name) for name in ("late", "started")}
    script.write_text(ENDLESS.format(python=sys.executable, **paths))
    script.chmod(0o755)
    return script


def test_what_is_not_done_in_time_is_stopped(monkeypatch, endless, capfd):
    """Also what it started."""
    monkeypatch.setattr(compare_gpu.sys, "executable", str(endless))
    start = time.monotonic()
    assert compare_gpu.compare(start + 1, "run")
    assert time.monotonic() - start < 30
    assert capfd.readouterr().out == "compare run: the time is up; the same command goes on\n"
    time.sleep(3.5)
    assert not endless.with_name("late").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing_behind(endless, number):
    code = f"import sys; sys.executable = {str(endless)!r}; import compare_gpu; compare_gpu.main()"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=TOOLS, stderr=subprocess.DEVNULL, env=os.environ)
    end = time.monotonic() + 120
    while not endless.with_name("started").exists():
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(30) != 0
    time.sleep(3.5)
    assert not endless.with_name("late").exists()


def test_a_failure_is_told(tmp_path, capfd):
    assert not compare_gpu.compare(time.monotonic() + 120, "report", "--results", tmp_path)
    assert "no results" in capfd.readouterr().err
