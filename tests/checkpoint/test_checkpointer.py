import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from la_det.checkpoint import Checkpointer, newest_intact
from la_det.checkpoint.checkpointer import replacing
from la_det.errors import UserError
from tests.checkpoint.evil import Evil


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def test_round_trip_marks_the_last_checkpoint(tmp_path):
    saved, loaded = model(), model()
    checkpointer = Checkpointer(saved, str(tmp_path))
    assert not checkpointer.has_checkpoint()
    checkpointer.save("first")
    checkpointer.save("second", note="kept")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first.pth", "last_checkpoint", "second.pth"]
    extra = Checkpointer(loaded, str(tmp_path)).resume(newest_intact(str(tmp_path)))
    assert extra["note"] == "kept"
    assert all(torch.equal(a, b) for a, b in zip(saved.parameters(), loaded.parameters(), strict=True))


@pytest.mark.parametrize("name", ["evil.pth", "evil.pkl"])
def test_pickled_code_runs_only_with_the_flag(name):
    state = {"model": {k: v.numpy() for k, v in model().state_dict().items()}, "__author__": "x", "extra": Evil()}
    if name.endswith("pkl"):
        Path(name).write_bytes(pickle.dumps(state))
    else:
        torch.save({"model": model().state_dict(), "extra": Evil()}, name)
    with pytest.raises(UserError, match=f"{name}: .*train.allow_pickle=True"):
        Checkpointer(model()).load(name)
    assert not Path("evil_was_here").exists()
    Checkpointer(model(), allow_pickle=True).load(name)
    assert Path("evil_was_here").exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickled_arrays_are_read(protocol):
    state = {k: v.numpy() for k, v in model().state_dict().items()}
    state["1.num_batches_tracked"] = np.array(5)
    Path("zoo.pkl").write_bytes(pickle.dumps({"model": state, "__author__": "zoo"}, protocol=protocol))
    loaded = model()
    Checkpointer(loaded, strict=True).load("zoo.pkl")
    assert np.array_equal(loaded[0].weight.detach().numpy(), state["0.weight"])
    assert loaded[1].num_batches_tracked == 5


def test_safetensors_are_read():
    saved, loaded = model(), model()
    save_file(saved.state_dict(), "a.safetensors")
    Checkpointer(loaded, strict=True).load("a.safetensors")
    assert torch.equal(saved[0].weight, loaded[0].weight)


def test_plain_state_dict_is_read():
    saved, loaded = model(), model()
    torch.save(saved.state_dict(), "plain.pth")
    Checkpointer(loaded, strict=True).load("plain.pth")
    assert torch.equal(saved[0].weight, loaded[0].weight)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 broken"])
@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors"])
@pytest.mark.parametrize("allow_pickle", [False, True])
def test_damaged_file(content, suffix, allow_pickle):
    Path(f"bad{suffix}").write_bytes(content)
    with pytest.raises(UserError, match=f"bad{suffix}: ") as error:
        Checkpointer(model(), allow_pickle=allow_pickle).load(f"bad{suffix}")
    assert "if you trust its author" not in str(error.value) or not allow_pickle


def test_missing_file():
    with pytest.raises(UserError, match="nowhere.pth: cannot get this checkpoint"):
        Checkpointer(model()).load("nowhere.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("0.weight"), r"1 missing \(first: 0.weight\)"),
        (lambda state: state.update(more=torch.ones(1)), r"1 unexpected \(first: more\)"),
        (lambda state: state.update({"0.bias": torch.ones(5)}), r"first: 0.bias \[5\] instead of \[3\]"),
    ],
)
def test_resuming_and_evaluating_need_every_parameter(change, message):
    state = model().state_dict()
    change(state)
    torch.save({"model": state}, "other.pth")
    Checkpointer(model()).load("other.pth")  # initial weights may be a part
    with pytest.raises(UserError, match=f"other.pth: this checkpoint is of another model: .*{message}"):
        Checkpointer(model(), strict=True).load("other.pth")
    with pytest.raises(UserError, match=message):
        Checkpointer(model()).resume("other.pth")


def test_each_key_is_counted_once():
    state = model().state_dict() | {"0.bias": torch.ones(5)}
    torch.save({"model": state}, "other.pth")
    with pytest.raises(UserError) as error:
        Checkpointer(model(), strict=True).load("other.pth")
    assert "of another model: 1 of another shape (first: 0.bias [5] instead of [3]); use" in str(error.value)


def test_extras_are_in_every_file_and_change_nothing():
    Checkpointer(model(), ".", extras={"recipe": {"a": [1.0]}}).save("a", iteration=3)
    assert Checkpointer(model()).resume("a.pth") == {"recipe": {"a": [1.0]}, "iteration": 3}


class WithTrainingBranch(nn.Module):
    def __init__(self):
        super().__init__()
        self.main, self.second = nn.Linear(2, 3), nn.Linear(2, 3)

    def training_only_keys(self) -> set[str]:
        return {"second.weight", "second.bias"}


def test_evaluating_does_not_need_what_only_training_uses():
    state = WithTrainingBranch().state_dict()
    part = {key: value for key, value in state.items() if key.startswith("main.")}
    torch.save({"model": part}, "part.pth")
    Checkpointer(WithTrainingBranch().eval(), strict=True).load("part.pth")
    with pytest.raises(UserError, match=r"2 missing \(first: second.weight\)"):
        Checkpointer(WithTrainingBranch(), strict=True).load("part.pth")
    torch.save({"model": {"main.weight": state["main.weight"]}}, "less.pth")
    with pytest.raises(UserError, match=r"1 missing \(first: main.bias\)"):
        Checkpointer(WithTrainingBranch().eval(), strict=True).load("less.pth")


def test_initial_weights_have_to_give_something():
    torch.save({"model": {"x": torch.ones(1)}}, "other.pth")
    with pytest.raises(UserError, match="this checkpoint is of another model"):
        Checkpointer(model()).load("other.pth")


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.pth"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_kill_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.pth"
    path.write_text("old")
    code = (
        "import os, pathlib, signal; from la_det.checkpoint.checkpointer import replacing\n"
        f"with replacing(pathlib.Path({str(path)!r})) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": root})
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def make_run(folder, count=3):
    """Checkpoints of iterations 0, 1, ...; the last one is marked."""
    for i in range(count):
        Checkpointer(model(), str(folder)).save(f"model_{i:07d}")


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"data/0") + 200] ^= 1
    path.write_bytes(content)


def test_newest_intact(tmp_path, caplog):
    assert newest_intact(str(tmp_path)) == ""
    make_run(tmp_path)
    assert newest_intact(str(tmp_path)) == str(tmp_path / "model_0000002.pth") and not caplog.text
    damage(tmp_path / "model_0000002.pth")
    assert newest_intact(str(tmp_path)) == str(tmp_path / "model_0000001.pth")
    assert "model_0000002.pth: damaged" in caplog.text and "newest intact checkpoint" in caplog.text
    (tmp_path / "model_0000001.pth").write_bytes(b"")
    assert newest_intact(str(tmp_path)) == str(tmp_path / "model_0000000.pth")
    (tmp_path / "model_0000000.pth").write_bytes(b"PK")
    with pytest.raises(UserError, match="model_0000002.pth: damaged.*there is no intact checkpoint beside it"):
        newest_intact(str(tmp_path))


@pytest.mark.parametrize("mark", [None, b"", b"\xff\xfe", b"../elsewhere.pth", b"gone.pth"])
def test_newest_intact_without_a_usable_mark(tmp_path, mark, caplog):
    make_run(tmp_path)
    (tmp_path / "last_checkpoint").unlink() if mark is None else (tmp_path / "last_checkpoint").write_bytes(mark)
    assert newest_intact(str(tmp_path)) == str(tmp_path / "model_0000002.pth")
    assert caplog.text


def test_best_weights_are_not_gone_on_from(tmp_path):
    make_run(tmp_path, 1)
    Checkpointer(model(), str(tmp_path)).save("model_best", mark_last=False, iteration=7)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000000.pth"


def test_integers_are_no_weights():
    state = model().state_dict()
    torch.save({"model": state | {"0.weight": torch.ones(3, 2, dtype=torch.int64)}}, "int.pth")
    with pytest.raises(UserError, match="int.pth: 0.weight is of torch.int64 instead of torch.float32"):
        Checkpointer(model()).load("int.pth")


def test_folder_that_is_gone(tmp_path):
    with pytest.raises(UserError, match=r"gone/a.pth: cannot write .*gone is gone"), replacing(tmp_path / "gone/a.pth"):
        pass


def test_weights_alone_are_no_run(tmp_path):
    make_run(tmp_path)
    other = Checkpointer(model(), str(tmp_path), trainer=model())
    with pytest.raises(UserError, match=r"it has weights, but not a training.s state \(trainer\)"):
        other.resume(newest_intact(str(tmp_path)))


class State:
    """Something that is saved beside a model."""

    def __init__(self, number=0):
        self.number = number

    def state_dict(self):
        return {"number": self.number}

    def load_state_dict(self, state):
        self.number = state["number"]


def test_checkpoints_older_than_the_names_of_classes_are_gone_on_from(tmp_path):
    Checkpointer(model(), str(tmp_path), stream=State(3)).save("model_0000000")
    stream, classes = State(), State(7)
    Checkpointer(model(), str(tmp_path), stream=stream, classes=classes).resume(str(tmp_path / "model_0000000.pth"))
    assert stream.number == 3 and classes.number == 7
    with pytest.raises(UserError, match="not a training's state"):
        Checkpointer(model(), str(tmp_path), trainer=State()).resume(str(tmp_path / "model_0000000.pth"))
