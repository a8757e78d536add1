"""The command for a GPU, tried on a CPU at a small size."""

import json

import pytest
import torch

import benchmark_gpu
from la_det.errors import UserError

SMALL = ["--device", "cpu", "--image-size", "64", "96", "--batch-sizes", "1", "--repeats", "1"]


def run(monkeypatch, capsys, *arguments) -> list[list[str]]:
    monkeypatch.setattr("sys.argv", ["benchmark_gpu.py", *SMALL, *map(str, arguments)])
    benchmark_gpu.main()
    lines = capsys.readouterr().out.splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]


@pytest.fixture
def without_compiler(monkeypatch) -> list[str]:
    """Instead of compiling, notes what should be compiled."""
    asked = []
    monkeypatch.setattr(torch, "compile", lambda run, dynamic: asked.append(run.__name__) or run)
    return asked


def test_both_tables(monkeypatch, capsys, tmp_path, without_compiler):
    path, config = tmp_path / "figures.json", "POTO/poto_r18_fpn_shapes_tiny"
    rows = run(monkeypatch, capsys, "--schemes", "poto", "--gts", 3, "--configs", config, "--json", path)
    schemes, steps = rows[:3], rows[3:]
    assert schemes[0] == ["scheme", "G", "assign ms", "total ms", "peak MiB", "ops", "waits", "host syncs"]
    assert schemes[2][:2] == ["poto", "3"] and int(schemes[2][5]) > 100
    assert steps[0] == benchmark_gpu.STEP_HEADER
    eager, retinanet, fcos, compiled = steps[2:]
    assert [row[0] for row in steps[2:]] == [
        f"{config}, eager",
        "Detectron2 RetinaNet",
        "Detectron2 FCOS",
        f"{config}, compiled",
    ]
    assert all(eager) and all(compiled) and eager[8].endswith("%")
    assert retinanet[4:6] == fcos[4:6] == ["", ""] and retinanet[8] == ""
    assert without_compiler == ["predict"]
    assert len(json.loads(path.read_text())) == 5


def test_nothing_is_begun_when_the_time_is_over(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmark_gpu.py", *SMALL, "--seconds", "0", "--schemes", "poto", "--gts", "3"])
    benchmark_gpu.main()
    out = capsys.readouterr().out
    assert "no time: 1\n" in out and "no time: 6\n" in out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu(monkeypatch):
    monkeypatch.setattr("sys.argv", ["benchmark_gpu.py"])
    with pytest.raises(UserError, match="--device cuda: there is no GPU; --device cpu tries the command"):
        benchmark_gpu.main()
