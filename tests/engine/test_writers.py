"""Wandb, which is an extra, has a stand-in."""

import json
import math
import sys
from types import SimpleNamespace

import pytest
from detectron2.utils.events import EventStorage

from la_det.engine.writers import MetricsWriter, WandbWriter
from la_det.errors import UserError


@pytest.fixture
def wandb(monkeypatch) -> list:
    calls = []

    def init(**options):
        calls.append(options)
        run_id = options["id"] or f"id{len(calls)}"
        return SimpleNamespace(id=run_id, log=lambda values, step: calls.append((step, values)), finish=lambda: None)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    return calls


def test_resumed_run_keeps_its_id(wandb, tmp_path):
    for _ in range(2):
        writer = WandbWriter(str(tmp_path), project="p", mode="offline", tags=["x"])
        writer.close()
    first, second = wandb
    assert first["id"] is None and second["id"] == "id1" and second["resume"] == "allow"
    assert first["mode"] == "offline" and first["dir"] == str(tmp_path) and first["tags"] == ["x"]


def test_every_value_is_sent_once(wandb, tmp_path):
    writer = WandbWriter(str(tmp_path), project="p")
    with EventStorage(0) as storage:
        for storage.iter in (0, 1):
            storage.put_scalar("loss", 3 - storage.iter)
            writer.write()
            writer.write()
    assert wandb[1:] == [(0, {"loss": 3.0}), (1, {"loss": 2.0})]


def test_without_wandb(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install \'la_det\[tracking\]\'"):
        WandbWriter(str(tmp_path), project="p")


def test_metrics_are_strict_json(tmp_path):
    path = tmp_path / "metrics.json"
    writer = MetricsWriter(str(path), window_size=1)
    with EventStorage(0) as storage:
        for iteration, ap in enumerate((1.5, math.nan, math.inf)):
            storage.iter = iteration
            storage.put_scalars(loss=0.1 * iteration, **{"bbox/AP": ap}, smoothing_hint=False)
            writer.write()
        writer.write()  # nothing new
    writer.close()

    def refuse(name):
        raise AssertionError(name)

    lines = [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [0, 1, 2]
    assert [line["bbox/AP"] for line in lines] == [1.5, None, None]
    assert [line["loss"] for line in lines] == [0.0, 0.1, 0.2]
