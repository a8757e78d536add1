"""`la-det compare` as a user runs it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from la_det import cli

ROOT = Path(__file__).parents[2]
NAME = "fcos_r18_fpn_shapes_tiny_seed0"
SMALL = (
    "train.log_period=1",
    "train.device=cpu",
    "dataloader.train.total_batch_size=2",
    "dataloader.train.num_workers=0",
    "dataloader.test.num_workers=0",
)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the generated data sets are, or will be."""
    return Path(os.environ.get("DETECTRON2_DATASETS") or tmp_path_factory.mktemp("datasets")).resolve()


@pytest.fixture
def start(tmp_path: Path, datasets: Path):
    """Starts a command in an empty folder."""

    def run(*argv: str) -> subprocess.Popen:
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "DETECTRON2_DATASETS": str(datasets),
        }
        command = [sys.executable, "-m", "la_det", "compare", *argv]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True, **pipes)

    return run


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["compare", "--help"])
    assert stop.value.code == 0
    assert " run --data shapes_tiny --max-iter " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("run --data shapes_tiny --max-iter 2 --schemes yolo", "yolo: there is no config"),
        (
            "run --data shapes_tiny --seconds 9 --schemes fcos",
            "docs/comparison/fcos_r18_fpn_shapes_tiny_cost.json: no such",
        ),
        ("report --results nowhere", "nowhere: no results"),
        ("run --data shapes_tiny --max-iter 0", "argument --max-iter: 0 is no whole number above 0"),
    ],
)
def test_wrong_use(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main(["compare", *argv.split()])
    assert stop.value.code == 2
    assert f"error: {message}" in capsys.readouterr().err


@pytest.mark.slow
def test_stopped_run_goes_on_and_all_is_reported(start, tmp_path):
    budget = ("--data", "shapes_tiny", "--max-iter", "2", "--opts", *SMALL)
    stopped = start("run", "--schemes", "fcos", "poto_argmax", *budget)
    console = tmp_path / "output" / "comparison" / f"{NAME}.console.txt"
    while stopped.poll() is None and not (console.exists() and "Start inference" in console.read_text()):
        time.sleep(0.1)
    stopped.send_signal(signal.SIGTERM)
    assert finish(stopped)[0] == 128 + signal.SIGTERM
    results = tmp_path / "docs" / "comparison"
    assert not results.exists()

    with pytest.raises(ProcessLookupError):  # no training is left behind
        os.killpg(stopped.pid, 0)

    code, out, err = finish(start("run", "--schemes", "fcos", *budget))
    assert code == 0, err
    record = json.loads((results / f"{NAME}.json").read_text())
    assert [evaluation["iteration"] for evaluation in record["evaluations"]] == [1, 2]
    assert record["overrides"] == list(SMALL) and "bbox/AR" in record["evaluations"][0]

    code, out, err = finish(start("run", "--schemes", "fcos", *budget))
    assert code == 0 and "1 runs, 1 of them finished before" in out

    cost = ("cost", "--data", "shapes_tiny", "--steps", "1", "--opts", *SMALL)
    code, out, err = finish(start(*cost, "--rounds", "2", "--schemes", "fcos", "detectron2_fcos"))
    assert code == 0, err
    measured = json.loads((results / "fcos_r18_fpn_shapes_tiny_cost.json").read_text())
    assert len(measured["rounds"]) == 2 and measured["parameters"] > 1e6
    parts = ("data", "network", "matching", "losses", "backward", "optimizer")
    for figures in measured["rounds"]:
        assert all(figures[part] > 0 for part in (*parts, "peak_mib"))
        assert sum(figures[part] for part in parts) <= figures["step"]
    code, out, err = finish(start(*cost, "--steps", "2", "--rounds", "3", "--schemes", "fcos"))
    assert code == 2 and "measured with other settings" in err

    code, out, err = finish(start("report"))
    assert (code, out.splitlines()[-1]) == (0, "docs/comparison.md"), err
    text = (tmp_path / "docs" / "comparison.md").read_text()
    assert "| [fcos]" in text and "| detectron2_fcos " in text and "shapes_tiny_cost.png" in text
