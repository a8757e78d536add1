"""Reading checkpoint files without running code from them: only tensors, NumPy arrays and plain containers."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from la_det.errors import UserError

# What unpicklers raise, beside UnpicklingError, where a file was cut or is none.
DAMAGES = (AttributeError, EOFError, IndexError, KeyError, RuntimeError, TypeError, ValueError, struct.error)
FLAG = "train.allow_pickle=True"
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")  # before and since NumPy 2
HARMLESS = frozenset(
    {("numpy", "ndarray"), ("numpy", "dtype"), ("collections", "OrderedDict"), ("_codecs", "encode")}
    | {(module, "_reconstruct") for module in _MULTIARRAY}
)


def load_torch_file(path: str, allow_pickle: bool, flag: str = FLAG) -> Any:
    """What `torch.save` wrote, on the CPU.

    Args:
        allow_pickle: also read objects other than tensors and containers. They can run any code.
        flag: how the user says so, for the error message.

    Raises:
        OSError: the file cannot be opened.
        UserError: it holds other objects that `allow_pickle` does not allow, or is damaged.
    """
    with open(path, "rb") as file:
        if allow_pickle:
            with unpickling(path):
                return torch.load(file, map_location="cpu", weights_only=False)
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise UserError(
                f"{path}: it holds more than tensors or is damaged; "
                f"if you trust its author, {flag} reads it and runs whatever code it holds"
            ) from error
        except (OSError, *DAMAGES) as error:  # an OSError where a cut file is read beyond its end
            raise UserError(f"{path}: damaged, or no PyTorch checkpoint; get the file again") from error


def load_safetensors(path: str) -> dict[str, Tensor]:
    """The tensors of a .safetensors file.

    Raises:
        OSError: the file cannot be opened.
        UserError: it is damaged.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: damaged, or no safetensors file; get the file again") from error


@contextmanager
def unpickling(path: str) -> Iterator[None]:
    """Turn what goes wrong while a trusted file is unpickled into a `UserError`: damage, and packages it wants."""
    try:
        yield
    except (pickle.UnpicklingError, ImportError, OSError, *DAMAGES) as error:
        raise UserError(
            f"{path}: cannot be unpickled ({error}); get the file again or install what it needs"
        ) from error


def check_pickle(path: str, flag: str = FLAG) -> None:
    """Raise `UserError`, which names `flag`, if the pickle names anything but arrays and containers, or is none."""
    with open(path, "rb") as file:
        try:
            _ArrayUnpickler(file, encoding="latin1").load()
        except (pickle.UnpicklingError, *DAMAGES) as error:
            raise UserError(
                f"{path}: not read as a checkpoint ({error}); "
                f"if you trust its author, {flag} reads it and runs whatever code it holds"
            ) from error


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in HARMLESS:
            raise pickle.UnpicklingError(f"it holds an object of {module}.{name}")
        return super().find_class(module, name)
