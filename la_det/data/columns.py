"""Checks of JSON values by whole columns: the types of a column are one set, its numbers are one array."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np

NUMBERS = frozenset({int, float})
MISSING = type("Missing", (), {"__repr__": lambda self: "missing"})()  # value of a key that an object lacks


def column(rows: Sequence[dict], key: str) -> list:
    """The values of a key, `MISSING` where an object lacks it."""
    return [row.get(key, MISSING) for row in rows]


def wrong_types(values: Sequence, types: Collection[type]) -> list[int]:
    """Indices of values that have none of these types; `bool` is no `int` here."""
    if set(map(type, values)) <= set(types):
        return []
    return [i for i, value in enumerate(values) if type(value) not in types]


def to_numbers(values: Sequence) -> tuple[np.ndarray, list[int]]:
    """Values as float64 [N], 0 for a value that is no finite number, and the indices of these values."""
    numbers = flat_numbers([values])
    if numbers is not None and np.isfinite(numbers).all():
        return numbers, []
    good = [_finite_number(value) for value in values]
    return np.array([0.0 if x is None else x for x in good]), [i for i, x in enumerate(good) if x is None]


def flat_numbers(rows: Sequence[Sequence]) -> np.ndarray | None:
    """The numbers of all rows one after the other, float64; None if an element is no number or beyond float64."""
    if not set(map(type, chain.from_iterable(rows))) <= NUMBERS:
        return None
    try:
        return np.fromiter(chain.from_iterable(rows), dtype=np.float64, count=sum(map(len, rows)))
    except OverflowError:  # an int beyond float64
        return None


def to_boxes(values: Sequence) -> tuple[np.ndarray, list[int]]:
    """Values as float64 [N, 4], 0 for a value that is not four numbers (nan and inf are), and these values' indices."""
    if not wrong_types(values, {list}) and set(map(len, values)) <= {4}:
        numbers = flat_numbers(values)
        if numbers is not None:
            return numbers.reshape(-1, 4), []
    wrong = [i for i, v in enumerate(values) if type(v) is not list or len(v) != 4 or None in map(_number, v)]
    boxes = np.zeros((len(values), 4))
    bad = set(wrong)
    for i, value in enumerate(values):
        if i not in bad:
            boxes[i] = value
    return boxes, wrong


def _number(value: Any) -> float | None:
    if type(value) not in NUMBERS:
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _finite_number(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and np.isfinite(number) else None


def repeated(values: Sequence) -> list[int]:
    """Indices of the values that have occurred before."""
    if len(set(values)) == len(values):
        return []
    seen: set = set()
    again = []
    for i, value in enumerate(values):
        if value in seen:
            again.append(i)
        seen.add(value)
    return again


def ends_of(lengths: np.ndarray) -> np.ndarray:
    """[N + 1] beginning of each of N consecutive pieces with these lengths, and the end of the last one."""
    return np.concatenate(([0], np.cumsum(lengths)))


class Strings(Sequence[str]):
    """Strings in one block of memory that processes share: a Python object would be copied at its first use."""

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [s.encode("utf-8", "surrogateescape") for s in strings]
        self._ends = ends_of(np.fromiter(map(len, encoded), np.int64, count=len(encoded)))
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start, end = self._ends[index : index + 2]
        return self._bytes[start:end].tobytes().decode("utf-8", "surrogateescape")


class Ids(Sequence):
    """Ids as a file has them: integers of any size, floats or strings, in memory that processes share."""

    def __init__(self, ids: Sequence) -> None:
        if set(map(type, ids)) <= {int} and all(-(2**63) <= i < 2**63 for i in ids):
            self._values: np.ndarray | Strings = np.array(ids, dtype=np.int64)
        else:
            self._values = Strings(map(json.dumps, ids))

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: int) -> int | float | str:
        value = self._values[index]
        return json.loads(value) if isinstance(value, str) else int(value)
