"""Pascal VOC's XML form of annotations, which LabelImg and other tools also write.

A data set has VOC's folders `Annotations/*.xml` and `JPEGImages`, with lists of parts in `ImageSets/Main/*.txt`, or it
is a folder of XML files with their images beside them. In VOC, `xmin` and `xmax` are the first and the last pixel of
the object, counted from 1: a box from 1 to 10 is 10 pixels wide and begins at the image's border. Objects marked
`difficult` are ordinary objects, as in Detectron2.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from la_det.data.build import DEFAULTS, Options, Source, build
from la_det.data.images import IMAGE_SUFFIXES, MAX_SIDE, read_header
from la_det.data.problems import Problems, show
from la_det.data.table import Records
from la_det.errors import UserError

CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(folder: str, options: Options = DEFAULTS) -> Records:
    """Read and check a folder, or one part of it. An image's id is the name of its XML file without the suffix.

    The classes are `options.classes` or, by default, all names in the folder's files, sorted.

    Raises:
        UserError: a file cannot be read, or something in it is surely wrong; the message names file and object.
    """
    annotations, image_folder = _folders(folder)
    everything = sorted(path.stem for path in annotations.glob("*.xml"))
    if not everything:
        raise UserError(f"{folder}: no XML file in {annotations}; name a folder of Pascal VOC's form")
    stems = everything if options.split is None else _read_split(folder, options.split, set(everything))
    problems = Problems(str(folder))
    files = {stem: _read_xml(annotations / f"{stem}.xml", problems) for stem in dict.fromkeys([*stems, *everything])}
    problems.check()
    classes = list(dict.fromkeys([*sorted({o.name for f in files.values() for o in f.objects}), *options.classes]))
    number = {name: i for i, name in enumerate(classes)}
    if not classes:
        raise UserError(f"{folder}: no object in any of its {len(files)} XML files; annotate some")

    root, names = _image_names(image_folder, stems, [files[stem].image for stem in stems])
    objects = [x for stem in stems for x in files[stem].objects]
    boxes = np.array([x.box for x in objects], dtype=np.float64).reshape(-1, 4)
    sizes = [
        files[stem].size or read_header(os.path.join(root, name)).size for stem, name in zip(stems, names, strict=True)
    ]
    return build(
        Source(
            problems=problems,
            image_root=root,
            names=names,
            ids=stems,
            sizes=np.array(sizes, dtype=np.int64).reshape(-1, 2),
            classes=classes,
            class_ids=range(1, len(classes) + 1),
            images=np.repeat(np.arange(len(stems)), [len(files[stem].objects) for stem in stems]),
            labels=np.array([number[x.name] for x in objects], dtype=np.int64),
            boxes=boxes,
            convention="pixels",
            asks=False,
            place="object {}",
            places=np.concatenate([np.arange(len(files[stem].objects)) for stem in stems]),
            crowd=np.zeros(len(objects), dtype=bool),
        ),
        options,
    )


def voc_files(folder: str) -> list[str]:
    """Sorted paths of all files that `read_voc` may read."""
    folders = {*_folders(folder), Path(folder, "ImageSets/Main")}
    return sorted(str(path) for place in folders if place.is_dir() for path in place.iterdir())


def voc_splits(folder: str) -> tuple[str, str] | None:
    """Names of the parts for training and for testing; None if the folder has no lists of parts."""
    lists = {path.stem for path in Path(folder, "ImageSets/Main").glob("*.txt")}
    train = next((name for name in ("train", "trainval") if name in lists), None)
    test = next((name for name in ("val", "test") if name in lists), train)
    return None if train is None else (train, test)


def _folders(folder: str) -> tuple[Path, Path]:
    """The folder of the XML files and the folder of the images."""
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: no such folder")
    annotations, images = Path(folder, "Annotations"), Path(folder, "JPEGImages")
    annotations = annotations if annotations.is_dir() else Path(folder)
    return annotations, images if images.is_dir() else annotations


def _read_split(folder: str, split: str, known: Collection[str]) -> list[str]:
    """The names in a list of images. Lists of a class have -1, 0 or 1 after a name, which may itself hold spaces."""
    path = Path(folder, "ImageSets/Main", f"{split}.txt")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no list of images that can be read ({error}); name another split") from error
    found = [line.strip() for line in lines if line.strip()]
    stems = list(dict.fromkeys(line if line in known else re.sub(r"\s+(-1|0|1)$", "", line) for line in found))
    if not stems:
        raise UserError(f"{path}: it names no image; name another split")
    return stems


@dataclass(frozen=True)
class _Object:
    name: str
    box: tuple[float, ...]


@dataclass(frozen=True)
class _File:
    """An XML file: `size` is (height, width) or None, and `image` is the name of the image, which may be empty."""

    image: str
    size: tuple[int, int] | None
    objects: Sequence[_Object]


def _read_xml(path: Path, problems: Problems) -> _File:
    """The content of a file. If the file is damaged, this is a problem that stops, and the content is empty."""

    def stop(where: str, kind: str) -> None:
        problems.stop([0], lambda _: f"{path}{where}", kind)

    try:
        if not path.is_file():
            raise OSError("no such file, or no regular one")
        data = path.read_bytes()
        if b"<!ENTITY" in data:  # a few entities can stand for gigabytes
            raise ValueError("it defines entities")
        root = ElementTree.fromstring(data)
    except (OSError, ValueError, LookupError, RecursionError, ElementTree.ParseError) as error:
        stop("", f"no XML that can be read ({show(str(error))}); write the file again")
        return _File("", None, ())
    size = None
    if root.find("size") is not None:
        values = [_number(root.find("size"), key) for key in ("height", "width")]
        if any(x is None or x % 1 or not 0 <= x <= MAX_SIDE for x in values):
            stop("", "its size is no number of pixels; correct it, or leave size out")
        elif all(values):  # some tools write 0
            size = (int(values[0]), int(values[1]))
    objects = []
    for i, element in enumerate(root.iter("object")):
        name, bndbox = (element.findtext("name") or "").strip(), element.find("bndbox")
        box = tuple(_number(bndbox, key) for key in CORNERS) if bndbox is not None else (None,)
        if not name or not name.isprintable():
            stop(f", object {i}: name is {show(name)}", "no name; name the class")
        elif None in box:
            found = [None if bndbox is None else bndbox.findtext(key) for key in CORNERS]
            stop(f", object {i}: bndbox is {show(found)}", f"not four finite numbers {', '.join(CORNERS)}; correct it")
        else:
            objects.append(_Object(name, box))
    return _File((root.findtext("filename") or "").strip(), size, objects)


def _number(element: ElementTree.Element, key: str) -> float | None:
    try:
        value = float(element.findtext(key) or "")
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _image_names(folder: Path, stems: Sequence[str], named: Sequence[str]) -> tuple[str, list[str]]:
    """The folder of the images, and the names of the images: named like the XML file, or as the XML file says."""
    by_stem: dict[str, str] = {}
    there = set()
    for name in sorted(os.listdir(folder)):
        if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
            by_stem.setdefault(os.path.splitext(name)[0], name)
            there.add(name)
    return str(folder), [
        by_stem.get(stem) or (name if name in there else f"{stem}.jpg") for stem, name in zip(stems, named, strict=True)
    ]
