"""Files that are damaged, altered or hostile: one line, no code, no memory to speak of."""

import collections
import pickle
import random
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from la_det.checkpoint.recipe import read_recipe, write_weights
from la_det.checkpoint.safe_pickle import (
    check_tensors,
    load_pickled_arrays,
    load_safetensors,
    load_torch_file,
    outline,
)
from la_det.errors import UserError
from tests.checkpoint.evil import Evil

STATE = {"a": torch.arange(3000.0).view(30, 100), "b": torch.ones(2, 2, dtype=torch.int64)}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Call:
    """A pickle of it calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("new", [True, False])
def test_outline_has_everything_but_the_tensors(new):
    content = {"model": STATE, "recipe": {"x": [1, 2.5, "text", None, (True,)]}, "size": torch.Size([1, 2])}
    content["parameters"] = collections.OrderedDict(w=torch.nn.Parameter(torch.ones(1)))
    torch.save(content, "a.pth", _use_new_zipfile_serialization=new)
    found = outline("a.pth")
    assert found["recipe"] == content["recipe"] and found["size"] == torch.Size([1, 2])
    assert found["model"].keys() == STATE.keys() and not isinstance(found["model"]["a"], torch.Tensor)


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize(
    "bomb",
    [
        Call(bytearray, 2 * 10**9),
        Call(torch.UntypedStorage, 2 * 10**9),
        Call(torch.Tensor, 10**9),
        Call(torch.FloatTensor, 10**9),
    ],
)
def test_values_that_a_file_does_not_have_take_no_memory(bomb, new):
    """All of these torch.load(weights_only=True) makes."""
    torch.save({"model": {"a": bomb}}, "a.pth", _use_new_zipfile_serialization=new)
    tracemalloc.start()
    with pytest.raises(UserError, match="a.pth: it holds more than tensors or is damaged"):
        load_torch_file("a.pth", allow_pickle=False)
    assert tracemalloc.get_traced_memory()[1] < 10**8
    tracemalloc.stop()


def test_compressed_archive():
    torch.save(STATE, "a.pth")
    with zipfile.ZipFile("a.pth") as old, zipfile.ZipFile("b.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, b"\0" * 10**8 if "data/0" in name else old.read(name))
    assert Path("b.pth").stat().st_size < 10**6
    with pytest.raises(UserError, match="b.pth: it is compressed, as no PyTorch checkpoint is"):
        load_torch_file("b.pth", allow_pickle=False)
    assert read_recipe("b.pth") == {}


@pytest.mark.parametrize("seed", range(20))
def test_flipped_bit_in_a_torch_file(seed):
    torch.save({"model": STATE}, "a.pth")
    content = bytearray(Path("a.pth").read_bytes())
    start = content.index(STATE["a"].numpy().tobytes()[:64])
    position = random.Random(seed).randrange(start, start + STATE["a"].nbytes)
    content[position] ^= 1 << seed % 8
    Path("a.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"a.pth: damaged: .*data/0 in it does not have its checksum"):
        load_torch_file("a.pth", allow_pickle=False)


@pytest.mark.parametrize("seed", range(20))
def test_flipped_bit_in_our_safetensors(seed):
    write_weights(Path("a.safetensors"), STATE, {"config": "c", "repository": "r", "overrides": {}, "network": {}})
    content = bytearray(Path("a.safetensors").read_bytes())
    content[-1 - random.Random(seed).randrange(STATE["a"].nbytes)] ^= 1 << seed % 8
    Path("a.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"a.safetensors: damaged: its content does not have the checksum in it"):
        load_safetensors("a.safetensors")


def test_huge_header():
    Path("a.safetensors").write_bytes(struct.pack("<Q", 1 << 50) + b"{}")
    with pytest.raises(UserError, match="a.safetensors: damaged, or no safetensors file"):
        load_safetensors("a.safetensors")


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"a": Evil()}),
        pickle.dumps({"a": Call(np.ndarray, (10**10,))}),
        pickle.dumps({"a": Call(np.ones(1).__reduce__()[0], np.ndarray, (10**10,), b"d")}),
        b"\x80\x02]q\x00r\xff\xff\xff\x7f.",  # a memo index that C's unpickler would make room for
    ],
    ids=["code", "array", "reconstruct", "memo"],
)
def test_hostile_arrays(content):
    Path("a.pkl").write_bytes(content)
    try:
        assert load_pickled_arrays("a.pkl") == []
    except UserError as error:
        assert "a.pkl: not read as a checkpoint" in str(error)
    assert not Path("evil_was_here").exists()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([torch.ones(1)], "no state dict of names and tensors, but list"),
        (torch.ones(1), "but Tensor"),
        ({}, "an empty dict"),
        ({"a": "text"}, "a is no tensor, but str"),
        ({"a": 3}, "a is no tensor, but int"),
        ({3: torch.ones(1)}, "3 is no name"),
        ({"a": np.array(["x"])}, "a is no tensor, but ndarray"),
        ({"a": torch.ones(2, device="meta")}, "a is no ordinary tensor"),
        ({"a": torch.eye(3).to_sparse()}, "a is no ordinary tensor"),
        ({"a": torch.eye(3).to_sparse_csr()}, "a is no ordinary tensor"),
        ({"a": torch.ones(1, dtype=torch.complex64)}, "a is no ordinary tensor"),
        ({"a": torch.zeros(1).expand(10**12)}, "a claims more values than the file has"),
        ({"a": torch.tensor([1, float("nan")])}, "a has values that are not finite"),
        ({"a": np.array([np.inf])}, "a has values that are not finite"),
    ],
)
def test_what_is_no_state_dict(state, message):
    with pytest.raises(UserError, match=f"x.pth: .*{message}"):
        check_tensors("x.pth", state)


def test_safetensors_of_others_have_no_checksum():
    save_file(STATE, "a.safetensors")
    assert torch.equal(load_safetensors("a.safetensors")["a"], STATE["a"])
