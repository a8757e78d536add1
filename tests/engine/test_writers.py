"""With a stand-in for wandb, which is an extra."""

import sys
from types import SimpleNamespace

import pytest
from detectron2.utils.events import EventStorage

from la_det.engine.writers import WandbWriter
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
    with pytest.raises(UserError, match=r"pip install \'la_det\[wandb\]\'"):
        WandbWriter(str(tmp_path), project="p")
