"""Two checkouts side by side; not how fast they are."""

from pathlib import Path

import pytest

import la_det
from la_det.benchmark import paired
from la_det.cli import bench, build_parser
from la_det.errors import UserError


def run(*arguments) -> None:
    bench.run(build_parser("bench").parse(["paired", *map(str, arguments)]))


@pytest.mark.slow
def test_table(capsys):
    """This checkout beside itself: the same memory."""
    here = Path(la_det.__file__).parents[1]
    run("--other", here, "--schemes", "poto", "--gts", 2, 3, "--pairs", 2)
    header, _, *rows = ([c.strip() for c in x.split("|")[1:-1]] for x in capsys.readouterr().out.splitlines())
    assert header == ["scheme", "G", "ours ms", "theirs ms", "ours / theirs", "memory, ours / theirs"]
    assert [row[:2] for row in rows] == [["poto", "2"], ["poto", "3"], ["poto", "mean"]]
    assert all(row[5] == "1.00" for row in rows) and all(float(row[4]) > 0 for row in rows)


def test_both_take_turns(monkeypatch):
    """Ours takes 2 ms and theirs 4, but for the warm-up and one disturbed turn."""
    calls, answers = [], {"ours": iter([30, 99, 2, 2, 2, 80]), "other": iter([20, 99, 4, 4, 4, 160])}

    class Worker:
        def __init__(self, checkout, arguments):
            self.name = "other" if str(checkout) == "there" else "ours"

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(paired, "_worker", Worker)
    monkeypatch.setattr(paired, "_answer", lambda worker: next(answers[worker.name]))
    monkeypatch.setattr(paired, "_ask", lambda worker, call: calls.append(worker.name) or next(answers[worker.name]))
    pair = paired.compare("poto", 20, Path("there"), call="train", pairs=4, threads=1)
    assert pair == paired.Pair(2, 4, 0.5, 1.5)
    assert calls == ["other", "ours", "ours", "other"] * 2 + ["other", "ours"]


def test_no_checkout(tmp_path):
    with pytest.raises(UserError, match=f"--other {tmp_path}: it has no la_det/benchmark/matching.py"):
        run("--other", tmp_path)
