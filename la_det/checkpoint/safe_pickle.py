"""Reads checkpoint files without running code from them, and without taking far more memory than their size on disk.

Only tensors, NumPy arrays and plain containers are read. If a file has checksums, they must be right.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from la_det.errors import UserError

# What unpicklers raise, besides UnpicklingError, if a file was cut or is no pickle.
DAMAGES = (
    AssertionError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)
FLAG = "train.allow_pickle=True"
CHECKSUM = "sha256"  # key of the checksum in the metadata of our .safetensors files
MAX_EXPANDED = 1 << 29  # bytes that the tensors of a state dict may claim beyond those in the file
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")  # before and since NumPy 2
_PICKLES_OF_OLD_FORMAT = 4  # before torch 1.6: magic number, protocol, system, then the content


def load_torch_file(path: str, allow_pickle: bool, flag: str = FLAG) -> Any:
    """The content of a file of `torch.save`, on the CPU.

    Args:
        allow_pickle: also read objects other than tensors and containers. They can run any code.
        flag: the user's option for `allow_pickle`, for the error message.

    Raises:
        OSError: the file cannot be opened.
        UserError: the file holds other objects without `allow_pickle`, or it is damaged.
    """
    with open(path, "rb") as file:
        _check_archive(path, file)
        if allow_pickle:
            with unpickling(path):
                return torch.load(file, map_location="cpu", weights_only=False)
        try:
            _outline(file)
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise UserError(
                f"{path}: it holds more than tensors or is damaged ({_first_line(error)}); "
                f"if you trust its author, {flag} reads it and runs whatever code it holds"
            ) from error
        except (OSError, *DAMAGES) as error:  # an OSError if a cut file is read beyond its end
            raise UserError(f"{path}: damaged, or no PyTorch checkpoint; get the file again") from error


def outline(path: str, verify: bool = False) -> Any:
    """The content of a file of `torch.save` without its tensors: an `Inert` is in the place of each tensor.

    Args:
        verify: also check the checksums of all content.

    Raises:
        OSError: the file cannot be opened.
        UserError: the file is damaged, or holds more than tensors and containers.
    """
    with open(path, "rb") as file:
        _check_archive(path, file, verify)
        try:
            return _outline(file)
        except (pickle.UnpicklingError, OSError, *DAMAGES) as error:
            raise UserError(f"{path}: damaged, or no PyTorch checkpoint ({_first_line(error)})") from error


def load_safetensors(path: str) -> dict[str, Tensor]:
    """The tensors of a .safetensors file.

    Raises:
        OSError: the file cannot be opened.
        UserError: the file is damaged.
    """
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise UserError(f"{path}: damaged, or no safetensors file; get the file again") from error
    if metadata.get(CHECKSUM, checksum := tensors_checksum(tensors, metadata)) != checksum:
        raise UserError(f"{path}: damaged: its content does not have the checksum in it; get the file again")
    return tensors


def tensors_checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of tensors with their names, types and shapes, and of all metadata except the checksum."""
    digest = hashlib.sha256(json.dumps(sorted((k, v) for k, v in metadata.items() if k != CHECKSUM)).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def load_pickled_arrays(path: str, flag: str = FLAG) -> Any:
    """The content of a pickle of NumPy arrays and plain containers.

    Raises:
        OSError: the file cannot be opened.
        UserError: the pickle has other objects, or the file is no pickle; the message says that `flag` reads it.
    """
    with open(path, "rb") as file:
        try:
            return _ArrayUnpickler(file, encoding="latin1").load()
        except (pickle.UnpicklingError, *DAMAGES) as error:
            raise UserError(
                f"{path}: not read as a checkpoint ({_first_line(error)}); "
                f"if you trust its author, {flag} reads it and runs whatever code it holds"
            ) from error


@contextmanager
def unpickling(path: str) -> Iterator[None]:
    """Turn errors of unpickling a trusted file, from damage or missing packages, into a `UserError`."""
    try:
        yield
    except (pickle.UnpicklingError, ImportError, OSError, *DAMAGES) as error:
        raise UserError(
            f"{path}: cannot be unpickled ({_first_line(error)}); get the file again or install what it needs"
        ) from error


def check_tensors(path: str, state: Any) -> dict[str, Tensor]:
    """A state dict whose entries are ordinary tensors with finite values. Arrays become tensors.

    Args:
        path: path of the file, for error messages.
        state: the content that should be a state dict.

    Raises:
        UserError: `state` is no such state dict; the message names the entry.
    """
    if not isinstance(state, Mapping) or not state:
        raise UserError(f"{path}: it holds no state dict of names and tensors, but {_kind(state)}; give a checkpoint")
    tensors = {}
    expanded = 0
    for name, value in state.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            value = torch.from_numpy(value)
        problem = _problem(value)
        if problem or not isinstance(name, str):
            raise UserError(f"{path}: it holds no state dict: {name} {problem or 'is no name'}; give a checkpoint")
        tensors[name] = value
        expanded += _expanded(value)
        if expanded > MAX_EXPANDED:
            raise UserError(f"{path}: it holds no state dict: {name} claims more values than the file has")
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(f"{path}: {name} has values that are not finite (NaN or infinite); give another checkpoint")
    return tensors


def _expanded(value: Tensor) -> int:
    """Bytes that a tensor would need beyond its storage, which its elements may share."""
    return max(value.numel() * value.element_size() - value.untyped_storage().nbytes(), 0)


def _problem(value: Any) -> str:
    """Why a value is no tensor that a model can load; "" if it is one."""
    if not isinstance(value, Tensor):
        return f"is no tensor, but {_kind(value)}"
    if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_nested or value.is_complex():
        return "is no ordinary tensor"
    return ""


def _kind(value: Any) -> str:
    return f"an empty {type(value).__name__}" if hasattr(value, "__len__") and not len(value) else type(value).__name__


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _check_archive(path: str, file: IO[bytes], contents: bool = True) -> None:
    """Refuse a cut or compressed zip archive (torch's format since 1.6); with `contents`, also an altered one."""
    if file.read(2) == b"PK":
        try:
            with zipfile.ZipFile(file) as archive:
                records = archive.infolist()
                if any(record.compress_type for record in records):
                    raise UserError(f"{path}: it is compressed, as no PyTorch checkpoint is; get the file again")
                if sum(record.file_size for record in records) > os.fstat(file.fileno()).st_size:
                    raise UserError(f"{path}: damaged: it claims more than its size; get the file again")
                damaged = archive.testzip() if contents else None
        except (OSError, *DAMAGES) as error:
            raise UserError(f"{path}: damaged, or no PyTorch checkpoint; get the file again") from error
        if damaged:
            raise UserError(f"{path}: damaged: {damaged} in it does not have its checksum; get the file again")
    file.seek(0)


def _outline(file: IO[bytes]) -> Any:
    largest = os.fstat(file.fileno()).st_size
    if file.read(2) == b"PK":
        with zipfile.ZipFile(file) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            with archive.open(name) as content:
                return _TorchOutline(content, largest).load()
    file.seek(0)
    for _ in range(_PICKLES_OF_OLD_FORMAT):
        content = _TorchOutline(file, largest).load()
    return content


class Inert:
    """Stands for a tensor or a type, and does nothing when it is called or set up."""

    def __call__(self, *args: Any) -> Inert:
        return Inert()

    def __setstate__(self, state: Any) -> None:
        pass


# These unpicklers are in Python: a file cannot make their memo take memory that the file does not fill.


class _TorchOutline(pickle._Unpickler):
    """Reads the structure that `torch.save` pickled.

    torch's restricted unpickler knows more types, and some of them take as much memory as a file asks for.
    """

    NAMES = frozenset(
        {"builtins.set", "builtins.complex", "torch.Size", "torch.device", "_codecs.encode"}
        | {"collections.OrderedDict", "collections.Counter"}
    )
    INERT = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_parameter")

    def __init__(self, file: IO[bytes], largest: int) -> None:
        super().__init__(file, encoding="utf-8")
        self.largest = largest

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in self.NAMES:
            return super().find_class(module, name)
        is_type = module == "torch" and (name.endswith("Storage") or isinstance(getattr(torch, name, 0), torch.dtype))
        if is_type or full.startswith(self.INERT) or full == "torch.serialization._get_layout":
            return Inert()
        raise pickle.UnpicklingError(f"it holds an object of {full}")

    def persistent_load(self, pid: Any) -> Inert:
        *_, numel = pid[:5]
        if not 0 <= numel <= self.largest:
            raise ValueError(f"it claims {numel} values")
        return Inert()


class _ArrayUnpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "ndarray"):
            return _ARRAY
        if name == "_reconstruct" and module in _MULTIARRAY:
            return _empty_array
        if (module, name) in {("numpy", "dtype"), ("collections", "OrderedDict"), ("_codecs", "encode")}:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it holds an object of {module}.{name}")


_ARRAY = object()


def _empty_array(kind: object, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """NumPy's `_reconstruct`, as pickles call it: an empty array, which gets its values afterwards."""
    if kind is not _ARRAY or tuple(shape) != (0,):
        raise pickle.UnpicklingError("it holds an array that NumPy does not write in this way")
    return np.empty(0)
