"""Tells whether a pickle file holds plain containers and NumPy arrays only, without running code from it."""

from __future__ import annotations

import pickle
from typing import Any

from la_det.errors import UserError

_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")  # before and since NumPy 2
HARMLESS = frozenset(
    {("numpy", "ndarray"), ("numpy", "dtype"), ("collections", "OrderedDict"), ("_codecs", "encode")}
    | {(module, "_reconstruct") for module in _MULTIARRAY}
)


def check_pickle(path: str) -> None:
    """Raise `UserError` if the pickle at `path` names anything but arrays and containers, or is no pickle."""
    with open(path, "rb") as file:
        try:
            _ArrayUnpickler(file, encoding="latin1").load()
        except (pickle.UnpicklingError, EOFError, ValueError, AttributeError, IndexError, KeyError) as error:
            raise UserError(
                f"{path}: not read as a checkpoint ({error}); "
                "if you trust its author, train.allow_pickle=True reads it and runs whatever code it holds"
            ) from error


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in HARMLESS:
            raise pickle.UnpicklingError(f"it holds an object of {module}.{name}")
        return super().find_class(module, name)
