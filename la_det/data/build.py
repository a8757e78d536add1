"""The last step of every reader, from the images and annotations that it found to checked `Records`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from la_det.data.boxes import (
    CONVENTIONS,
    CORNERS,
    FRACTIONS,
    MAX_COORDINATE,
    check_convention,
    note_boxes_beyond,
    usable_boxes,
)
from la_det.data.columns import Ids, Strings, ends_of, repeated
from la_det.data.problems import Problems, show
from la_det.data.segmentations import FINE, NONE, REASONS, Segmentations
from la_det.data.table import Records
from la_det.errors import UserError


@dataclass(frozen=True)
class Options:
    """What the user says about a source.

    Attributes:
        boxes: convention of the boxes, a key of `CONVENTIONS`. None: the convention of the format, which is checked if
            files of this format are known to come with other conventions.
        classes: names of the classes to use, in this order; all classes if empty.
        split: name of one part of a source with several parts.
        tag: tag of the objects in an odgt file.
    """

    boxes: str | None = None
    classes: tuple[str, ...] = ()
    split: str | None = None
    tag: str | None = None


DEFAULTS = Options()


@dataclass
class Source:
    """What a reader found: columns of the right types, with values that have not been checked.

    Attributes:
        problems: the problems found so far.
        image_root: folder of the images.
        names, ids, sizes: names, ids and [N, 2] heights and widths of the N images.
        classes, class_ids: names and ids of the K classes.
        images, labels: [A] number of each annotation's image and class.
        boxes: [A, 4] in the source's convention.
        convention: convention of the format, a key of `CONVENTIONS`.
        asks: whether files of this format are known to come with boxes of another convention.
        place: text with a gap for an annotation's place in the source, for messages.
        places: [A] numbers that fill this gap.
        crowd: [A] bool, whether the annotation is a region to ignore.
        areas: [A] square pixels, nan where unknown; None: all are unknown.
        masks: [A] values of `segmentation`; None: there are no masks.
        annotated: whether there are annotations at all.
        amodal: whether boxes are of whole objects, so that they may reach beyond the image.
    """

    problems: Problems
    image_root: str
    names: Sequence[str]
    ids: Sequence
    sizes: np.ndarray
    classes: Sequence[str]
    class_ids: Sequence
    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    convention: str
    asks: bool
    place: str
    places: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray | None = None
    masks: Sequence[Any] | None = None
    annotated: bool = True
    amodal: bool = False

    def describe(self, row: int) -> str:
        """Description of an annotation for a message."""
        box = ", ".join(f"{x:.6g}" for x in self.boxes[row])
        return f"{self.place.format(self.places[row])} of image {show(self.names[self.images[row]])}: box [{box}]"

    def describe_image(self, image: int) -> str:
        """Description of an image for a message."""
        return f"image {show(self.names[image])}"


def build(source: Source, options: Options) -> Records:
    """Check the values, drop and count what cannot be used, and sort the annotations by image.

    Raises:
        UserError: something is surely wrong; the message names the first records and what to do.
    """
    problems = source.problems
    _check_names(source)
    problems.check()
    classes, class_ids, label_of = _chosen_classes(source, options)
    problems.note(
        repeated(source.names), source.describe_image, "an earlier image is the same file; its pixels count twice"
    )

    huge = np.flatnonzero(((np.abs(source.boxes) > MAX_COORDINATE) & np.isfinite(source.boxes)).any(axis=1))
    problems.stop(huge, source.describe, f"a coordinate beyond {MAX_COORDINATE:g} is no pixel; correct the box")
    problems.check()
    sizes = source.sizes[source.images]
    if source.asks and options.boxes is None:
        check_convention(source.boxes, sizes, source.describe, problems)
        problems.check()
    boxes = CONVENTIONS[options.boxes or source.convention](source.boxes, sizes)
    good = usable_boxes(boxes, sizes, source.describe, problems)
    if not source.amodal:
        note_boxes_beyond(boxes, sizes, good, source.describe, problems)
    problems.check()

    masks = _read_masks(source, sizes, options.boxes in FRACTIONS)
    chosen = label_of[source.labels] >= 0
    kept = np.flatnonzero(good & chosen)
    kept = kept[np.argsort(source.images[kept], kind="stable")]
    return Records(
        source=problems.source,
        image_root=source.image_root,
        classes=tuple(classes),
        class_ids=tuple(class_ids),
        names=Strings(source.names),
        ids=Ids(source.ids),
        sizes=source.sizes.astype(np.int32),
        ends=ends_of(np.bincount(source.images[kept], minlength=len(source.names))),
        boxes=boxes[kept],
        labels=label_of[source.labels[kept]],
        crowd=source.crowd[kept],
        areas=_areas(source, options, boxes, masks)[kept],
        rows=kept,
        places=source.places[kept].astype(np.int32),
        place=source.place,
        masks=masks,
        has_objects=np.bincount(source.images[chosen & ~source.crowd], minlength=len(source.names)) > 0,
        annotated=source.annotated,
        problems=problems,
    )


def _check_names(source: Source) -> None:
    """Stop if a file name is impossible or leads out of the folder of images."""

    def has_no_file(name: str) -> bool:
        try:
            return "\0" in name or not name or not name.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return True

    impossible = [i for i, name in enumerate(source.names) if has_no_file(name)]
    source.problems.stop(impossible, source.describe_image, "no file can have this name; correct it")
    root = os.path.join(os.path.abspath(source.image_root), "")
    bad = set(impossible)
    outside = [
        i
        for i, name in enumerate(source.names)
        if (name.startswith("/") or ".." in name)
        and i not in bad
        and not os.path.abspath(os.path.join(root, name)).startswith(root)
    ]
    source.problems.stop(
        outside,
        source.describe_image,
        f"this path leaves the folder of images {source.image_root}; name a folder that holds all images",
    )


def _chosen_classes(source: Source, options: Options) -> tuple[Sequence[str], Sequence, np.ndarray]:
    """Names and ids of the classes to use, and [K] the new number of each class of the source, -1 if it is not used."""
    if not options.classes:
        return source.classes, source.class_ids, np.arange(len(source.classes), dtype=np.int32)
    number = {name: i for i, name in enumerate(source.classes)}
    for name in options.classes:
        if name not in number:
            known = ", ".join(map(show, source.classes[:20]))
            raise UserError(f"{source.problems.source}: class={name}: there is no such class; it has {known}")
    chosen = [number[name] for name in dict.fromkeys(options.classes)]
    label_of = np.full(len(source.classes), -1, dtype=np.int32)
    label_of[chosen] = np.arange(len(chosen))
    return [source.classes[i] for i in chosen], [source.class_ids[i] for i in chosen], label_of


def _read_masks(source: Source, sizes: np.ndarray, fractions: bool) -> Segmentations | None:
    """The masks. With `fractions`, outlines are in fractions of the image unless they reach beyond the first pixel."""
    if source.masks is None:
        return None
    masks = Segmentations(source.masks, sizes, fractions)
    for state, reason in REASONS.items():
        if state != NONE:
            wrong = np.flatnonzero(masks.state == state)
            source.problems.note(wrong, source.describe, f"{reason}; its box counts, and it has no mask")
    partly = np.flatnonzero(masks.polygons_dropped)
    source.problems.note(partly, source.describe, "some of its polygons have no 3 points and are left out")
    return masks


def _areas(source: Source, options: Options, boxes: np.ndarray, masks: Segmentations | None) -> np.ndarray:
    """[A] area from the source, else from the mask, else from the box.

    The tool that wrote boxes of another convention may have computed areas from their numbers. These count as unknown.
    """
    areas = np.full(len(boxes), np.nan)
    if source.areas is not None and options.boxes not in FRACTIONS:
        areas = source.areas.copy()
        if options.boxes in CORNERS:
            areas[np.isclose(areas, source.boxes[:, 2] * source.boxes[:, 3])] = np.nan
    if masks is not None:
        for row in np.flatnonzero(np.isnan(areas) & (masks.state == FINE)):
            areas[row] = masks.area(int(row))
    unknown = np.isnan(areas)
    areas[unknown] = boxes[unknown, 2] * boxes[unknown, 3]
    return areas
