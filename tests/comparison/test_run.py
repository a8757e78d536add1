"""The runner, with a training command that leaves what `la-det train` does and takes no time."""

import json
import logging
import re
import sys
from pathlib import Path

import pytest
import torch

from la_det.comparison import run
from la_det.comparison.results import Run, RunRecord, read_record
from la_det.comparison.run import Runner
from la_det.errors import UserError

TRAIN_NET = """
import json, os, sys
from pathlib import Path
opts = dict(a.split("=") for a in sys.argv if "=" in a)
if opts["train.seed"] == opts.get("fails"):
    sys.stdout.buffer.write(b"\\xff no text\\nerror: it cannot work\\n")
    sys.stdout.flush()
    sys.exit(2)
if opts["train.seed"] == opts.get("killed"):
    print("eta: 0:05", flush=True)
    os.kill(os.getpid(), 9)
if opts["train.seed"] == opts.get("stops_early"):
    opts["train.max_iter"] = 1
out, n = Path(opts["train.output_dir"]), int(opts["train.max_iter"])
out.joinpath("config.yaml").write_text("train: {device: cpu}")
gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "")
metrics = {"iteration": n, "bbox/AP": 7.0, "gpu/number": int(gpu) if gpu else -1}
if opts["train.seed"] != opts.get("leaves_nothing"):
    text = json.dumps(metrics)
    out.joinpath("metrics.json").write_text(text[:-3] if opts["train.seed"] == opts.get("writes_half") else text)
out.parent.joinpath("log").open("a").write(" ".join(sys.argv[1:]) + "\\n")
"""


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    command = tmp_path / "fake_train.py"
    command.write_text(TRAIN_NET)
    (tmp_path / "output").mkdir()
    return Runner(tmp_path / "results", tmp_path / "output", [sys.executable, str(command)])


def run_of(seed: int, *overrides: str) -> Run:
    return Run("POTO/poto_r18_fpn_shapes_tiny", seed, {"max_iter": 10}, 10, list(overrides))


def commands(runner: Runner) -> list[str]:
    return (runner.output / "log").read_text().splitlines()


def test_runs_once_and_records(runner, monkeypatch):
    run._machine.cache_clear()
    threads = 1 if torch.get_num_threads() > 1 else 2
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))  # of the runs' processes, not of this one
    runs = [run_of(0), run_of(1)]
    assert runner.do(runs) == []
    first, second = commands(runner)
    assert "POTO/poto_r18_fpn_shapes_tiny --overwrite train.max_iter=10 train.seed=0 train.eval_period=4 " in first
    assert "train.seed=1" in second
    record = read_record(runner.results / "poto_r18_fpn_shapes_tiny_seed1.json", RunRecord)
    assert (record.seed, record.max_iter, record.device) == (1, 10, "cpu")
    assert record.threads == threads
    assert record.evaluations[0]["bbox/AP"] == 7.0 and {"torch", "detectron2"} <= record.versions.keys()
    assert runner.do([*runs, run_of(2)]) == []
    assert len(commands(runner)) == 3


def test_a_run_that_is_named_twice_is_done_once(runner):
    assert runner.do([run_of(0), run_of(0)], gpus=["0", "1"]) == []
    assert len(commands(runner)) == 1


def test_one_run_per_gpu(runner, monkeypatch):
    monkeypatch.setattr(run, "_machine", lambda device, gpu: {"device": f"GPU {gpu}", "threads": 1})
    runs = [run_of(seed) for seed in range(3)]
    runner.do(runs, gpus=["4", "6"])
    records = [read_record(path, RunRecord) for path in sorted(runner.results.iterdir())]
    gpus = [record.evaluations[0]["gpu/number"] for record in records]
    assert gpus[:2] == [4, 6] and gpus[2] in (4, 6)
    assert [record.device for record in records] == [f"GPU {gpu}" for gpu in gpus]


def test_a_failed_run_keeps_no_other_from_running_and_is_tried_again(runner, caplog):
    runs = [run_of(seed, "fails=1") for seed in range(3)]
    with caplog.at_level(logging.INFO, "la_det"):
        assert runner.do(runs) == [runs[1]]
    assert "seed1 failed: it cannot work" in caplog.text
    assert sorted(path.name[-6:] for path in runner.results.iterdir()) == ["0.json", "2.json"]
    assert runner.do(runs) == [runs[1]]


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("stops_early", "it has no evaluation after 10 iterations"),
        ("leaves_nothing", "No such file"),
        ("writes_half", "it has a line that is no record of metrics"),
        ("killed", "ended by SIGKILL"),
    ],
)
def test_a_run_without_its_last_evaluation_has_failed_alone(runner, caplog, trouble, reason):
    runs = [run_of(seed, f"{trouble}=0") for seed in range(2)]
    assert runner.do(runs) == [runs[0]]
    assert "seed0 failed: " in caplog.text and reason in caplog.text
    assert [path.name[-6:] for path in runner.results.iterdir()] == ["1.json"]


@pytest.mark.parametrize("override", ["train.seed=3", "train.ema.enabled=True", "++train.max_iter=7"])
def test_options_of_the_comparison_itself_cannot_be_changed(runner, override):
    with pytest.raises(UserError, match=f"^{re.escape(override)}: a comparison cannot change this option"):
        runner.do([run_of(0), run_of(1, override)])
    assert not (runner.output / "log").exists()


def test_nothing_starts_where_a_record_is_damaged(runner):
    runner.results.mkdir()
    damaged = runner.results / "poto_r18_fpn_shapes_tiny_seed1.json"
    damaged.write_text(json.dumps({"config": "POTO/poto_r18_fpn_shapes_tiny"}))
    with pytest.raises(UserError, match=f"{damaged}: not a RunRecord"):
        runner.do([run_of(0), run_of(1)])
    assert not (runner.output / "log").exists()
