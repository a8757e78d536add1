"""Masks of COCO annotations (polygons or run lengths), checked and kept in arrays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from la_det.data.columns import MISSING, Strings, ends_of, flat_numbers, to_numbers

# Why an annotation has no mask.
FINE, NONE, POLYGON, RLE, SIZE = range(5)
REASONS = {
    NONE: "it has no segmentation",
    POLYGON: "its segmentation is no list of polygons with at least 3 points [x, y, x, y, x, y, ...]",
    RLE: 'its segmentation is no run-length encoding {"size": [height, width], "counts": ...} of a mask',
    SIZE: "its run-length encoded mask has another size than the image",
}
MIN_COORDINATES = 6
MAX_CHARS = 7  # characters of a number in a compressed run length: 35 bits


class Segmentations:
    """Masks of A annotations.

    Args:
        values: JSON values of the annotations' key `segmentation`.
        sizes: [A, 2] height and width of each annotation's image.
        fractions: whether a polygon whose coordinates are all at most 1 is in fractions of the image.

    Attributes:
        state: [A] int8, FINE or a key of REASONS, which says why there is no mask.
        polygons_dropped: [A] bool, whether some polygons were unusable while others are left.
    """

    def __init__(self, values: Sequence[Any], sizes: np.ndarray, fractions: bool = False) -> None:
        self.state = np.full(len(values), NONE, dtype=np.int8)
        self.polygons_dropped = np.zeros(len(values), dtype=bool)
        self._sizes = sizes.astype(np.int32)
        lists, codes = [], []
        for i, value in enumerate(values):
            kind = type(value)
            if kind is list:
                if value:
                    lists.append(i)
            elif kind is dict:
                codes.append(i)
            elif value is not None and value is not MISSING:
                self.state[i] = POLYGON
        self._read_polygons(np.array(lists, dtype=np.int64), [values[i] for i in lists])
        if fractions:
            self._scale_fractions()
        self._read_codes(codes, [values[i] for i in codes])

    def _read_polygons(self, rows: np.ndarray, values: list[list]) -> None:
        """Keep the coordinates of all usable polygons in one array, and the ends of polygons and annotations in it."""
        flat = None
        if set(map(type, chain.from_iterable(values))) <= {list}:
            polygons = list(chain.from_iterable(values))
            flat = flat_numbers(polygons)
        if flat is None or not np.isfinite(flat).all():
            values = [_numeric_polygons(value) for value in values]
            polygons = list(chain.from_iterable(values))
            flat = flat_numbers(polygons)
        lengths = np.fromiter(map(len, polygons), np.int64, count=len(polygons))
        owner = np.repeat(rows, np.fromiter(map(len, values), np.int64, count=len(values)))
        usable = (lengths >= MIN_COORDINATES) & (lengths % 2 == 0)
        self._coordinates = flat if usable.all() else flat[np.repeat(usable, lengths)]
        self._polygon_ends = ends_of(lengths[usable])
        count = np.bincount(owner[usable], minlength=len(self.state))
        self._ends = ends_of(count)
        self.state[rows] = POLYGON
        self.state[count > 0] = FINE
        self.polygons_dropped[owner[~usable]] = True
        self.polygons_dropped &= count > 0

    def _scale_fractions(self) -> None:
        """Give polygons in fractions their pixels."""
        owner = np.repeat(np.arange(len(self.state)), np.diff(self._ends))
        in_fractions = np.maximum.reduceat(np.abs(self._coordinates), self._polygon_ends[:-1]) <= 1
        scale = np.where(in_fractions[:, None], self._sizes[owner, ::-1], 1)
        points = self._coordinates.reshape(-1, 2) * np.repeat(scale, np.diff(self._polygon_ends) // 2, axis=0)
        self._coordinates = points.ravel()

    def _read_codes(self, rows: list[int], values: list[dict]) -> None:
        counts, good = [], []
        for i, value in zip(rows, values, strict=True):
            self.state[i], code = _compressed(value, tuple(self._sizes[i].tolist()))
            if code is not None:
                good.append(i)
                counts.append(code)
        area = self._sizes[good].astype(np.int64).prod(axis=1)
        broken = _total_run_lengths(counts) != area
        self.state[np.array(good, dtype=np.int64)[broken]] = RLE
        kept = [k for k, i in enumerate(good) if self.state[i] == FINE]
        self._code_rows = np.array([good[k] for k in kept], dtype=np.int64)
        self._codes = Strings(counts[k].decode() for k in kept)

    def __getitem__(self, row: int) -> list[list[float]] | dict[str, Any] | None:
        """The mask of an annotation in Detectron2's form; None if it has no mask."""
        code = int(np.searchsorted(self._code_rows, row))
        if code < len(self._code_rows) and self._code_rows[code] == row:
            return {"size": self._sizes[row].tolist(), "counts": self._codes[code]}
        first, last = self._ends[row : row + 2]
        if first == last:
            return None
        ends = self._polygon_ends[first : last + 1]
        flat = self._coordinates[ends[0] : ends[-1]].tolist()
        start = int(ends[0])
        return [flat[a - start : b - start] for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]

    def area(self, row: int) -> float:
        """Number of pixels of an annotation's mask, as COCO counts them; nan without a mask."""
        value = self[row]
        if value is None:
            return float("nan")
        if isinstance(value, list):
            value = mask_util.merge(mask_util.frPyObjects(value, *self._sizes[row].tolist()))
        return float(mask_util.area(value))


def _numeric_polygons(polygons: list) -> list[list]:
    """The polygons; a polygon that is no list of finite numbers becomes empty."""
    return [p if type(p) is list and not to_numbers(p)[1] else [] for p in polygons]


def _compressed(value: dict, size: tuple[int, int]) -> tuple[int, bytes | None]:
    """The state of a run-length encoded mask and, if its form is right, its compressed code."""
    counts, found = value.get("counts"), value.get("size")
    if type(found) is not list or len(found) != 2 or to_numbers(found)[1] or type(counts) not in (list, str):
        return RLE, None
    if tuple(found) != size:
        return SIZE, None
    if type(counts) is str:
        # pycocotools reads beyond the end of other text, and of a number without an end.
        code = counts.encode("utf-8", "surrogatepass")
        in_range = all(48 <= c < 112 for c in code)
        return (FINE, code) if code and in_range and not (code[-1] - 48) & 32 else (RLE, None)
    numbers, wrong = to_numbers(counts)
    if wrong or not counts or (numbers < 0).any() or (numbers % 1).any() or numbers.sum() != size[0] * size[1]:
        return RLE, None
    return FINE, mask_util.frPyObjects({"size": list(size), "counts": [int(x) for x in counts]}, *size)["counts"]


def _total_run_lengths(codes: Sequence[bytes]) -> np.ndarray:
    """Number of pixels that each compressed run length covers, int64; -1 if it holds impossible numbers.

    A code is a list of numbers. Each number is written in groups of 5 bits, the lowest group first. From number 3 on
    (counted from 0), a number is a difference to the number two places before.
    """
    totals = np.zeros(len(codes), dtype=np.int64)
    if not codes:
        return totals
    chars = np.frombuffer(b"".join(codes), dtype=np.uint8).astype(np.int64) - 48
    last = (chars & 32) == 0
    number = np.cumsum(last) - last  # index of the number that each char belongs to
    start = np.flatnonzero(np.concatenate(([True], last[:-1])))
    place = np.arange(len(chars)) - start[number]
    shift = 5 * np.minimum(place, MAX_CHARS)
    values = np.zeros(len(start), dtype=np.int64)
    np.add.at(values, number, (chars & 31) << shift)
    negative = last & ((chars & 16) > 0)
    np.subtract.at(values, number[negative], 32 << shift[negative])

    code_of_char = np.repeat(np.arange(len(codes)), [len(code) for code in codes])
    code = code_of_char[start]
    first = np.flatnonzero(np.concatenate(([True], code[1:] != code[:-1])))
    index = np.arange(len(code)) - first[code]
    # Chains of differences: the numbers 1, 3, 5, ... and 2, 4, 6, ...; number 0 is alone.
    chain_of = 3 * code + np.where(index == 0, 0, 1 + index % 2)
    order = np.argsort(chain_of, kind="stable")
    sums = np.cumsum(values[order])
    begins = np.flatnonzero(np.diff(chain_of[order], prepend=-1))
    lengths = np.diff(np.append(begins, len(order)))
    runs = sums - np.repeat(sums[begins] - values[order][begins], lengths)
    np.add.at(totals, code[order], runs)
    impossible = np.zeros(len(codes), dtype=bool)
    impossible[code[order][runs < 0]] = True
    impossible[code_of_char[place >= MAX_CHARS]] = True
    totals[impossible] = -1
    return totals
