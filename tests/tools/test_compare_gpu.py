"""The script for a short time on a GPU: what it starts, and how it ends."""

import sys
import time

import pytest

import compare_gpu
from la_det.errors import UserError


def test_it_measures_costs_then_trains_then_reports(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(compare_gpu, "compare", lambda end, *arguments: calls.append((end, arguments)))
    arguments = ["--schemes", "poto", "dw", "--at-once", "3", "--seconds", "100", "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["compare_gpu.py", *arguments])
    start = time.monotonic()
    compare_gpu.main()
    (end, cost), (training_end, run), (_, report) = calls
    assert end == training_end
    assert start + 80 < end < start + 90
    assert cost[0] == "cost"
    assert {"poto", "dw", *compare_gpu.DETECTRON2} <= set(cost)
    assert run[0] == "run"
    assert run.count("0") == 3  # the same GPU three times
    assert report == ("report", "--results", tmp_path)


def test_what_is_not_done_in_time_is_stopped(monkeypatch, tmp_path, capfd):
    """Also what it started."""
    child = f"import time; time.sleep(3); open({str(tmp_path / 'late')!r}, 'w')"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    script = tmp_path / "python"
    script.write_text(f"#!{sys.executable}\n{code}\n")
    script.chmod(0o755)
    monkeypatch.setattr(compare_gpu.sys, "executable", str(script))
    start = time.monotonic()
    compare_gpu.compare(start + 1, "run")
    assert time.monotonic() - start < 30
    assert capfd.readouterr().out == "compare run: the time is up; the same command goes on\n"
    time.sleep(3.5)
    assert not (tmp_path / "late").exists()


def test_a_failure_is_an_error(tmp_path, capfd):
    with pytest.raises(UserError, match="compare report: it failed, see above"):
        compare_gpu.compare(time.monotonic() + 120, "report", "--results", tmp_path)
    assert "no results" in capfd.readouterr().err
