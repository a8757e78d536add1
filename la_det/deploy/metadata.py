"""Metadata of an exported file, with which it can be used without its config."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from la_det.errors import UserError

NMS = Literal["none", "queries", "graph", "outside"]


@dataclass(frozen=True)
class ExportMetadata:
    """What an exported file says about itself. Names and values are stored as strings, values in JSON.

    Attributes:
        la_det: version that wrote the file.
        config: name or file of the config.
        classes: names of the K classes.
        category_ids: ids of the K classes in the data set, for results in COCO's format.
        pixel_mean, pixel_std: the network's input is (pixels - mean) / std, per channel of `input_format`.
        input_format: order of the channels, "BGR" or "RGB", or "L" for one channel.
        size_divisibility: images are padded with zeros, right and below, to multiples of this.
        short_edge: pixels of the short side after the recipe's resizing; None if it does not resize.
        max_size: largest number of pixels of the long side after resizing; None if it does not resize.
        score_threshold: smallest probability of a detection, exclusive.
        nms: where NMS is done.
            "none": nowhere (one-to-one schemes).
            "queries": in the graph, as part of the model; one NMS of all classes together (distinct queries).
            "graph": in the graph, class-wise.
            "outside": after the graph, whose outputs are candidates.
        nms_threshold: IoU of the NMS; None: no NMS.
        max_detections: largest number of detections per image, after NMS.
    """

    la_det: str
    config: str
    classes: tuple[str, ...]
    category_ids: tuple[int | float | str, ...]
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    input_format: str
    size_divisibility: int
    short_edge: int | None
    max_size: int | None
    score_threshold: float
    nms: NMS
    nms_threshold: float | None
    max_detections: int

    def to_strings(self) -> dict[str, str]:
        """The metadata in the form in which they are stored."""
        return {name: json.dumps(value) for name, value in asdict(self).items()}

    def to_json(self) -> str:
        """The metadata as one string, for archives with files."""
        return json.dumps(self.to_strings(), indent=1)

    @classmethod
    def from_strings(cls, strings: Mapping[str, str], path: object) -> ExportMetadata:
        """The metadata stored in the file `path`.

        Raises:
            UserError: the strings are not those of `to_strings`.
        """
        try:
            values = {field.name: json.loads(strings[field.name]) for field in fields(cls)}
        except (KeyError, ValueError) as error:
            raise UserError(f"{path}: no metadata of `la-det export` in it ({error}); export it again") from error
        options: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in values.items()}
        found = cls(**options)
        wrong = found._wrong()
        if wrong:
            raise UserError(
                f"{path}: its metadata says {wrong}={values[wrong]!r:.80}, which cannot be; export it again"
            )
        return found

    def _wrong(self) -> str:
        """Name of an impossible value; "" if there is none."""

        def is_number(value: Any, low: float, high: float, kind: Any = (int, float)) -> bool:
            return isinstance(value, kind) and not isinstance(value, bool) and low <= value <= high

        def are(values: object, kind: type | tuple, count: int | None = None) -> bool:
            return (
                isinstance(values, tuple)
                and all(isinstance(value, kind) for value in values)
                and count in (None, len(values))
            )

        channels = 1 if self.input_format == "L" else 3
        sizes = {name: getattr(self, name) for name in ("short_edge", "max_size")}
        right = {
            "la_det": isinstance(self.la_det, str),
            "config": isinstance(self.config, str),
            "classes": are(self.classes, str) and len(self.classes) > 0,
            "category_ids": are(self.category_ids, (int, float, str)) and len(self.category_ids) == len(self.classes),
            "input_format": self.input_format in ("BGR", "RGB", "L"),
            "pixel_mean": are(self.pixel_mean, (int, float), channels),
            "pixel_std": are(self.pixel_std, (int, float), channels) and 0 not in self.pixel_std,
            "size_divisibility": is_number(self.size_divisibility, 1, 1024, int),
            "score_threshold": is_number(self.score_threshold, 0, 1),
            "nms": self.nms in get_args(NMS),
            "nms_threshold": self.nms_threshold is None or is_number(self.nms_threshold, 0, 1),
            "max_detections": is_number(self.max_detections, 1, 100_000, int),
        } | {name: size is None or is_number(size, 1, 100_000, int) for name, size in sizes.items()}
        return next((name for name, is_right in right.items() if not is_right), "")
