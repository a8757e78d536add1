"""YOLO's text form of annotations, as Ultralytics' tools write it.

`data.yaml` names the folders or lists of images of each part (`train`, `val`, `test`) and the classes. The annotations
of `.../images/x/a.jpg` are in `.../labels/x/a.txt`; other images have them beside the image. No file means no object. A
line is `class x y width height`, the centre and size of a box, or `class x y x y x y ...`, the corners of an object's
outline. If `data.yaml` has `kpt_shape`, a line is a box and then its keypoints, which are not used. Classes count from
0; all other numbers are fractions of the image.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from la_det.data.build import DEFAULTS, Options, Source, build
from la_det.data.images import IMAGE_SUFFIXES, read_header
from la_det.data.problems import Problems, show
from la_det.data.table import Records
from la_det.errors import UserError

MAX_FRACTION = 2.0  # larger numbers are taken for pixels
THREADS = 8  # number of threads that read headers of images


def read_yolo(data_yaml: str, options: Options = DEFAULTS) -> Records:
    """Read and check one part of a data set. An image's id is its path in the folder of all images.

    Raises:
        UserError: a file cannot be read, or something in it is surely wrong; the message names file and line.
    """
    content = _load_yaml(data_yaml)
    classes = _class_names(content, data_yaml)
    places = _find_places(content, options.split, data_yaml)
    images = _images_of_all(places, options.split, data_yaml)
    problems = Problems(str(data_yaml))
    _note_other_places(places, options.split, problems)
    files = list(map(label_file, images))
    _note_missing_labels(files, problems)
    root = os.path.commonpath([os.path.dirname(path) for path in images])
    keypoints = _num_keypoint_values(content, data_yaml)
    labels = [_read_labels(path, len(classes), keypoints, problems) for path in files]
    problems.check()
    sizes = read_sizes(images)
    count = [len(lines) for lines in labels]
    lines = [line for part in labels for line in part]
    image_of = np.repeat(np.arange(len(images)), count)
    segments = [line.segment for line in lines]
    boxes = np.array([line.box for line in lines], dtype=np.float64).reshape(-1, 4)
    names = [os.path.relpath(path, root) for path in images]
    return build(
        Source(
            problems=problems,
            image_root=root,
            names=names,
            ids=names,
            sizes=sizes,
            classes=classes,
            class_ids=range(len(classes)),
            images=image_of,
            labels=np.array([line.label for line in lines], dtype=np.int64),
            boxes=boxes,
            convention="cxcywh_fractions",
            asks=False,
            place="line {} of the labels",
            places=np.array([line.number for line in lines], dtype=np.int64),
            crowd=np.zeros(len(lines), dtype=bool),
            masks=_polygons(segments, sizes[image_of]) if any(segments) else None,
        ),
        options,
    )


def yolo_files(data_yaml: str, options: Options) -> list[str]:
    """Paths of all files that `read_yolo` reads, except for lists of images; of label files, some may be missing."""
    places = _find_places(_load_yaml(data_yaml), options.split, data_yaml)
    images = _images_of_all(places, options.split, data_yaml)
    return [data_yaml, *images, *map(label_file, images)]


def yolo_splits(data_yaml: str) -> tuple[str, str]:
    """Names of the parts for training and for testing."""
    content = _load_yaml(data_yaml)
    if content.get("train") is None:
        raise UserError(f"{data_yaml}: it names no folder of images for training (train)")
    return "train", next((key for key in ("val", "test") if content.get(key) is not None), "train")


def label_file(image: str) -> str:
    """Path of an image's annotations: the last folder `images` becomes `labels`, the suffix becomes .txt."""
    folder, separator, name = image.rpartition(f"{os.sep}images{os.sep}")
    path = f"{folder}{os.sep}labels{os.sep}{name}" if separator else image
    return os.path.splitext(path)[0] + ".txt"


def read_sizes(images: Sequence[str]) -> np.ndarray:
    """[N, 2] height and width from the headers of image files."""
    with ThreadPoolExecutor(THREADS) as pool:
        sizes = list(pool.map(lambda path: read_header(path).size, images))
    return np.array(sizes, dtype=np.int64).reshape(-1, 2)


def _load_yaml(path: str) -> dict:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        content = yaml.safe_load(text)
        if isinstance(content, dict) and "names" in content:
            # This loader makes no numbers, truth values and times of names such as 010, no and 12:30.
            content["names"] = yaml.load(text, yaml.BaseLoader).get("names")
    except OSError as error:
        raise UserError(f"{path}: no such file or not readable ({error.strerror}); check the path") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: malformed YAML ({reason}); write the file again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: it holds {show(content)} instead of train, val and names")
    return content


def _class_names(content: dict, path: str) -> list[str]:
    names = content.get("names")
    if isinstance(names, dict):
        if set(names) != set(map(str, range(len(names)))):
            raise UserError(f"{path}: names: its numbers are {show(list(names))}, not 0, 1, ...; number the classes so")
        names = [names[str(i)] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{path}: names is {show(names)}; list the names of the classes")
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name.isprintable() or not name.strip():
            raise UserError(f"{path}: names[{i}] is {show(name)}, no name; name the class")
    if len(set(names)) < len(names):
        raise UserError(f"{path}: names: {show(names)} has a name twice; give every class its own")
    if content.get("nc", len(names)) != len(names):
        raise UserError(f"{path}: nc is {show(content['nc'])}, but there are {len(names)} names; correct one of them")
    return names


def _num_keypoint_values(content: dict, path: str) -> int | None:
    """How many numbers of a line are keypoints; None if the data set has no keypoints."""
    shape = content.get("kpt_shape")
    if shape is None:
        return None
    if not isinstance(shape, list) or [type(x) for x in shape] != [int, int] or shape[0] < 1 or shape[1] not in (2, 3):
        raise UserError(f"{path}: kpt_shape is {show(shape)}; write [number of keypoints, 2 or 3]")
    return shape[0] * shape[1]


def _find_places(content: dict, split: str | None, data_yaml: str) -> dict[str, str]:
    """Where the folders and lists of a part's images should be -> where they are.

    `path`, the folder of all of them, may be of another machine. Then they may be in the folder of `data.yaml`.
    """
    if split is None or content.get(split) is None:
        parts = ", ".join(key for key in ("train", "val", "test") if content.get(key) is not None)
        raise UserError(f"{data_yaml}: split={split}: say which part to read, for instance ,split=val; it has {parts}")
    root = content.get("path")
    entries = content[split] if isinstance(content[split], list) else [content[split]]
    if not all(isinstance(entry, str) and "\0" not in entry for entry in [*entries, root or ""]):
        raise UserError(f"{data_yaml}: {split} is {show(content[split])} and path {show(root)}; name folders of images")
    home = os.path.dirname(os.path.abspath(data_yaml))
    folders = dict.fromkeys([os.path.normpath(os.path.join(home, root or "")), home])
    places = {}
    for entry in entries:
        wanted = [os.path.normpath(os.path.join(folder, entry)) for folder in folders]
        place = next(filter(os.path.exists, wanted), None)
        # Roboflow's files say ../train/images for the folder train/images beside them.
        if place is None and entry.startswith("../"):
            inside = os.path.join(home, entry.removeprefix("../"))
            place = inside if os.path.exists(inside) else None
            wanted = wanted if root else [inside]
        if place is None:
            raise UserError(
                f"{data_yaml}: {split}: there is no folder or list {entry} below {' or '.join(folders)}; "
                "correct the path"
            )
        places[wanted[0]] = place
    return places


def _images_of_all(places: Mapping[str, str], split: str | None, data_yaml: str) -> list[str]:
    """Sorted paths of all images of a part."""
    images = {path for place in places.values() for path in _images_of(place)}
    if not images:
        raise UserError(f"{data_yaml}: {split}: no image in {', '.join(places.values())}; correct the path")
    return sorted(images)


def _note_other_places(places: Mapping[str, str], split: str | None, problems: Problems) -> None:
    """Note what is not where `path` says."""
    for wanted, place in places.items():
        if wanted != place:
            found = f"{place} is read in its place; correct `path`, or take it out"
            problems.note([0], lambda _, wanted=wanted: f"{split}: there is no {wanted}", found)


def _note_missing_labels(files: Sequence[str], problems: Problems) -> None:
    """Note the folders of labels that do not exist, or that there is no label at all."""
    folders = [folder for folder in dict.fromkeys(map(os.path.dirname, files)) if not os.path.isdir(folder)]
    problems.note(range(len(folders)), folders.__getitem__, "no such folder of labels, so its images have no object")
    if not folders and not any(map(os.path.lexists, files)):
        problems.note([0], files.__getitem__, "no such file of labels, nor one of another image")


def _images_of(place: str) -> list[str]:
    if os.path.isdir(place):
        return [
            os.path.join(folder, name)
            for folder, names in _walk(place)
            for name in names
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")
        ]
    text = _read_text(place)
    home = os.path.dirname(place)
    return [os.path.normpath(os.path.join(home, line.strip())) for line in text.splitlines() if line.strip()]


def _walk(place: str) -> Iterator[tuple[str, list[str]]]:
    """All folders below a folder, each once, and the names of their files.

    Links to folders are followed at the end, so that a folder has the path by which it has its labels, if it has one.
    """
    waiting, seen = [place], set()
    for start in waiting:
        for folder, folders, names in os.walk(start):
            real = os.path.realpath(folder)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            waiting += [path for name in sorted(folders) if os.path.islink(path := os.path.join(folder, name))]
            yield folder, names


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no text file that can be read ({error}); write it again") from error


@dataclass(frozen=True)
class _Line:
    """An object: `box` is its centre and size, `segment` the corners of its outline, all as fractions."""

    number: int
    label: int
    box: tuple[float, float, float, float]
    segment: tuple[float, ...]


def _read_labels(path: str, num_classes: int, keypoints: int | None, problems: Problems) -> list[_Line]:
    if not os.path.lexists(path):
        return []
    if not os.path.isfile(path):
        raise UserError(f"{path}: no regular file; replace or remove it")
    found = []
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        parsed = _parse(line, number, num_classes, keypoints)
        if isinstance(parsed, str):
            problems.stop([number], lambda i, line=line: f"{path}, line {i}: {show(line)}", parsed)
        else:
            found.append(parsed)
    return found


def _parse(line: str, number: int, num_classes: int, keypoints: int | None) -> _Line | str:
    """The object of a line, or a text that says what is wrong. A box may have numbers of keypoints after it."""
    try:
        label, *values = map(float, line.split())
    except ValueError:
        return "not numbers; correct or remove the line"
    if label % 1 or not 0 <= label < num_classes:
        return f"the class is none of 0 to {num_classes - 1}; correct the line or name the class in data.yaml"
    if not np.isfinite(values).all():
        return "not finite numbers; correct or remove the line"
    if keypoints is not None:
        if len(values) != 4 + keypoints:
            return f"not class x y width height and {keypoints} numbers of keypoints; correct the line or kpt_shape"
        del values[4:]
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        return "neither class x y width height nor class and at least 3 points x y; correct or remove the line"
    if values and max(map(abs, values)) > MAX_FRACTION:
        return "numbers beyond 1 are pixels; divide them by the image's width and height"
    if len(values) == 4:
        return _Line(number, int(label), tuple(values), ())
    xs, ys = values[::2], values[1::2]
    size = max(xs) - min(xs), max(ys) - min(ys)
    return _Line(number, int(label), (min(xs) + size[0] / 2, min(ys) + size[1] / 2, *size), tuple(values))


def _polygons(segments: Sequence[tuple[float, ...]], sizes: np.ndarray) -> list[list[list[float]] | None]:
    """Outlines in pixels, in COCO's form; None without an outline."""
    polygons: list[list[list[float]] | None] = []
    for segment, (height, width) in zip(segments, sizes.tolist(), strict=True):
        points = (np.array(segment).reshape(-1, 2) * (width, height)).ravel().tolist()
        polygons.append([points] if segment else None)
    return polygons
