"""Reading published files: wrappers, prefixes, formats, damage."""

import io
import pickle
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from la_det.conversion.published import read_official
from la_det.errors import UserError

STATE = {"head.a": torch.arange(3.0), "head.b": torch.ones(2, 2)}
OPTIMIZER = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1).state_dict()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def same(state: dict[str, torch.Tensor]) -> bool:
    return state.keys() == STATE.keys() and all(torch.equal(state[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state},
        lambda state: {"model": state, "optimizer": OPTIMIZER, "scheduler": {"last_epoch": 3}, "iteration": 9},
        lambda state: {"state_dict": state, "meta": {"epoch": 12, "CLASSES": ("person",)}, "optimizer": OPTIMIZER},
    ],
)
def test_wrappers(wrap, prefix, new):
    state = {prefix + key: value for key, value in STATE.items()}
    torch.save(wrap(state), "a.pth", _use_new_zipfile_serialization=new)
    assert same(read_official("a.pth"))


def test_a_prefix_of_some_keys_is_part_of_their_names():
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, "a.pth")
    assert read_official("a.pth").keys() == {"module.a", "b"}


def test_other_formats():
    arrays = {key: value.numpy() for key, value in STATE.items()}
    Path("a.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}))
    save_file(STATE, "a.safetensors")
    assert same(read_official("a.pkl"))
    assert same(read_official("a.safetensors"))


@pytest.mark.parametrize("content", [{}, {"model": {}}, [1, 2], {"epoch": 3}, {"model": {"a": "text"}}, np.ones(3)])
def test_no_state_dict(content):
    Path("a.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match="a.pkl: it holds no state dict"):
        read_official("a.pkl")


@pytest.mark.parametrize("new", [True, False])
def test_a_file_cut_anywhere_is_an_error(new):
    whole = io.BytesIO()
    torch.save({"model": STATE | {"large": torch.ones(100_000)}}, whole, _use_new_zipfile_serialization=new)
    content = whole.getvalue()
    for size in [*range(0, 2000, 7), *range(2000, len(content), 25_000), len(content) - 1]:
        Path("a.pth").write_bytes(content[:size])
        with pytest.raises(UserError, match="a.pth: "):
            read_official("a.pth")


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors"])
@pytest.mark.parametrize("allow_pickle", [False, True])
def test_no_file(suffix, allow_pickle):
    with pytest.raises(UserError, match=f"none{suffix}: "):
        read_official(f"none{suffix}", allow_pickle)
    Path(f"text{suffix}").write_text("no checkpoint")
    with pytest.raises(UserError, match=f"text{suffix}: "):
        read_official(f"text{suffix}", allow_pickle)


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_objects_of_packages_that_are_missing(suffix, monkeypatch):
    module = ModuleType("not_installed")
    module.Config = type("Config", (), {"__module__": "not_installed"})
    monkeypatch.setitem(sys.modules, "not_installed", module)
    content = {"model": STATE, "meta": module.Config()}
    torch.save(content, "a.pth")
    Path("a.pkl").write_bytes(pickle.dumps(content))
    monkeypatch.delitem(sys.modules, "not_installed")
    with pytest.raises(UserError, match=f"a{suffix}: .*No module named 'not_installed'.* install what it needs"):
        read_official(f"a{suffix}", allow_pickle=True)
