"""COCO's JSON form of annotations."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from detectron2.utils.file_io import PathManager

from la_det.data.build import DEFAULTS, Options, Source, build
from la_det.data.columns import MISSING, column, repeated, to_boxes, to_numbers, wrong_types
from la_det.data.images import MAX_SIDE, read_header
from la_det.data.problems import Problems, show
from la_det.data.table import Records
from la_det.errors import UserError

ID_TYPES = frozenset({int, float, str})
ABSENT = (None, MISSING)  # values of an optional key that is not there


@contextmanager
def _no_collection() -> Iterator[None]:
    """Switch garbage collection off: millions of new objects would start it, and they contain no cycles."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@_no_collection()
def read_coco(json_file: str, image_root: str, options: Options = DEFAULTS) -> Records:
    """Read and check a file. Images and classes are in the order of their ids, as in Detectron2.

    If an image has no width and height, they are read from its file. If the file has no list `annotations`, as that of
    test-dev, the records have no annotations.

    Raises:
        UserError: the file cannot be read, or something in it is surely wrong.
    """
    content = load_json(json_file)
    problems = Problems(str(json_file))
    images, categories = (_objects(content, key, problems.source) for key in ("images", "categories"))
    annotated = "annotations" in content
    annotations = _objects(content, "annotations", problems.source, may_be_empty=True) if annotated else []
    del content

    images = _sorted_by_id(images, "images", problems)
    categories = _sorted_by_id(categories, "categories", problems)
    names = _names(images, problems)
    classes = _class_names(categories, problems)
    problems.check()
    sizes = _sizes(images, names, image_root, problems)

    def describe(row: int) -> str:
        annotation = annotations[row]
        image_id = annotation.get("image_id")
        number = numbers_of_images.get(image_id) if type(image_id) in ID_TYPES else None
        image = f"image_id {show(image_id)}" if number is None else f"image {show(names[number])}"
        return f"annotations[{row}] (id {show(annotation.get('id'))}, {image})"

    numbers_of_images = {image["id"]: i for i, image in enumerate(images)}
    numbers_of_classes = {category["id"]: i for i, category in enumerate(categories)}
    image_of = _references(annotations, "image_id", numbers_of_images, describe, problems)
    label = _references(annotations, "category_id", numbers_of_classes, describe, problems)
    boxes, wrong = to_boxes(column(annotations, "bbox"))
    problems.stop(
        wrong,
        lambda i: f"{describe(i)}: bbox is {show(annotations[i].get('bbox', MISSING))}",
        "not four numbers [x, y, width, height]; correct or remove it",
    )
    crowd, areas = _crowd(annotations, describe, problems), _areas(annotations, describe, problems)
    problems.check()
    known = np.flatnonzero(image_of >= 0)
    lost = np.flatnonzero(image_of < 0)
    problems.drop(lost, describe, "dropped, because no image has this id")
    if len(lost) == len(annotations) and annotations:
        problems.stop(lost, describe, "no image has this id, nor that of any other annotation; correct image_id")
    masks = [annotations[i].get("segmentation") for i in known.tolist()]
    return build(
        Source(
            problems=problems,
            image_root=str(image_root),
            names=names,
            ids=[image["id"] for image in images],
            sizes=sizes,
            classes=classes,
            class_ids=[category["id"] for category in categories],
            images=image_of[known],
            labels=label[known],
            boxes=boxes[known],
            convention="xywh",
            asks=True,
            place="annotations[{}]",
            places=known,
            crowd=crowd[known],
            areas=areas[known],
            masks=masks if any(masks) else None,
            annotated=annotated,
        ),
        options,
    )


def read_categories(json_file: str) -> tuple[list[str], list]:
    """Names and ids of a file's categories, in the order of the ids."""
    problems = Problems(str(json_file))
    categories = _sorted_by_id(_objects(load_json(json_file), "categories", problems.source), "categories", problems)
    names = _class_names(categories, problems)
    problems.check()
    return names, [category["id"] for category in categories]


def load_json(path: str) -> object:
    """The content of a JSON file.

    Raises:
        UserError: the file is missing, cannot be read, or is no JSON.
    """
    try:
        with open(PathManager.get_local_path(str(path)), encoding="utf-8-sig") as file:
            return json.load(file)
    except OSError as error:
        raise UserError(f"{path}: no such file or not readable ({error.strerror}); check the path") from error
    except ValueError as error:
        raise UserError(f"{path}: malformed JSON ({error}); write the file again") from error
    except RecursionError as error:
        raise UserError(f"{path}: malformed JSON (lists nested too deeply to be read); write the file again") from error


def _objects(content: object, key: str, source: str, may_be_empty: bool = False) -> list[dict]:
    """A list of objects at the top level of a file."""
    if not isinstance(content, dict):
        raise UserError(f"{source}: not COCO-format annotations: it holds {show(content)} instead of an object")
    value = content.get(key, MISSING)
    if type(value) is not list or not (value or may_be_empty):
        raise UserError(
            f"{source}: not COCO-format annotations: '{key}' is {show(value)} instead of a list of objects"
            + ("" if may_be_empty else " with at least one")
        )
    wrong = wrong_types(value, {dict})
    if wrong:
        raise UserError(f"{source}: {key}[{wrong[0]}] is {show(value[wrong[0]])} instead of an object; correct it")
    return value


def _sorted_by_id(rows: list[dict], key: str, problems: Problems) -> list[dict]:
    """The rows by ascending id, numbers before strings. Stops at ids that are invalid or occur twice."""
    ids = column(rows, "id")
    wrong = _wrong_ids(ids)
    problems.stop(wrong, lambda i: f"{key}[{i}]: id is {show(ids[i])}", "neither a number nor a string; give it an id")
    problems.check()
    problems.stop(
        repeated(ids),
        lambda i: f"{key}[{i}]: id {show(ids[i])} is also that of {key}[{ids.index(ids[i])}]",
        f"give each of the {key} its own id, and what belongs to it that one",
    )
    problems.check()
    return sorted(rows, key=lambda row: (isinstance(row["id"], str), row["id"]))


def _wrong_ids(ids: Sequence) -> list[int]:
    wrong = wrong_types(ids, ID_TYPES)
    if float in set(map(type, ids)):
        wrong = sorted({*wrong, *(i for i, x in enumerate(ids) if type(x) is float and not np.isfinite(x))})
    return wrong


def _describe_image(row: dict) -> str:
    return f"image with id {show(row['id'])}"


def _names(images: list[dict], problems: Problems) -> list[str]:
    names = column(images, "file_name")
    problems.stop(
        wrong_types(names, {str}),
        lambda i: f"{_describe_image(images[i])}: file_name is {show(names[i])}",
        "not a string; correct it",
    )
    return names


def _class_names(categories: list[dict], problems: Problems) -> list[str]:
    """Names of the classes. If a name occurs again, the id is added to it, so that results are not confused."""
    names = column(categories, "name")
    wrong = [i for i, name in enumerate(names) if not _is_class_name(name)]
    problems.stop(
        wrong,
        lambda i: f"category with id {show(categories[i]['id'])}: name is {show(names[i])}",
        "not a string that can be printed; name the class",
    )
    again = [] if wrong else repeated(names)
    problems.note(
        again,
        lambda i: f"category with id {show(categories[i]['id'])}: name is {show(names[i])}",
        "an earlier category has the same name; results call this one by its name and id",
    )
    unique = list(names)
    for i in again:
        unique[i] = f"{names[i]} (id {categories[i]['id']})"
    return unique


def _is_class_name(name: object) -> bool:
    try:
        return isinstance(name, str) and name.strip() != "" and "\0" not in name and bool(name.encode())
    except UnicodeEncodeError:
        return False


def _sizes(images: list[dict], names: list[str], image_root: str, problems: Problems) -> np.ndarray:
    """[N, 2] height and width; if the file lacks them, they are read from the image."""
    sizes = np.zeros((len(images), 2), dtype=np.int64)
    absent: set[int] = set()
    for axis, key in enumerate(("height", "width")):
        values = [0 if value in ABSENT else value for value in column(images, key)]
        absent.update(i for i, image in enumerate(images) if image.get(key) is None)
        numbers, wrong = to_numbers(values)
        odd = np.flatnonzero((numbers % 1 != 0) | (numbers < 1) | (numbers > MAX_SIDE)).tolist()
        problems.stop(
            sorted({*wrong, *odd} - absent),
            lambda i, key=key: f"{_describe_image(images[i])}: {key} is {show(images[i][key])}",
            "not a number of pixels; correct it, or leave height and width out",
        )
        sizes[:, axis] = numbers.clip(-1, MAX_SIDE + 1)
    problems.check()
    problems.note(
        sorted(absent), lambda i: _describe_image(images[i]), "it has no height and width; those of its file are taken"
    )
    for i in sorted(absent):
        try:
            size = read_header(os.path.join(image_root, names[i])).size
        except UserError as error:
            raise UserError(
                f"{problems.source}: {_describe_image(images[i])} has no height and width; {error}"
            ) from None
        sizes[i] = size
    return sizes


def _references(
    annotations: list[dict], key: str, numbers: dict, describe: Callable[[int], str], problems: Problems
) -> np.ndarray:
    """[A] numbers of the annotations' images or categories; -1 for unknown images. Stops at unknown categories."""
    ids = column(annotations, key)
    wrong = _wrong_ids(ids)
    if wrong:
        problems.stop(wrong, describe, f"{key} is neither a number nor a string; correct it")
        problems.check()
    found = np.fromiter((numbers.get(x, -1) for x in ids), np.int64, count=len(ids))
    unknown = np.flatnonzero(found < 0)
    if not len(unknown):
        return found
    if key == "category_id":
        problems.stop(
            unknown, lambda i: f"{describe(i)}: category_id {show(ids[i])}", "there is no such category; add it"
        )
    else:
        kinds = {isinstance(x, str) for x in numbers}
        other = [i for i in unknown.tolist() if isinstance(ids[i], str) not in kinds]
        problems.stop(other, describe, "image_id and the ids of images must both be numbers or both strings")
    return found


def _crowd(annotations: list[dict], describe: Callable[[int], str], problems: Problems) -> np.ndarray:
    """[A] bool, the values of `iscrowd`, which may be absent."""
    crowd = {key: np.zeros(len(annotations), dtype=bool) for key in ("iscrowd", "ignore")}
    for key, flags in crowd.items():
        values = column(annotations, key)
        if set(map(type, values)) <= {type(MISSING)}:
            continue
        wrong = [
            i for i, v in enumerate(values) if v not in ABSENT and not (type(v) in (int, float, bool) and v in (0, 1))
        ]
        problems.stop(
            wrong,
            lambda i, key=key: f"{describe(i)}: {key} is {show(annotations[i][key])}",
            "neither 0 nor 1; correct it",
        )
        if not wrong:
            flags[:] = [v not in ABSENT and bool(v) for v in values]
    problems.stop(
        np.flatnonzero(crowd["ignore"] & ~crowd["iscrowd"]),
        lambda i: f"{describe(i)}: ignore is 1",
        "what is to be ignored has iscrowd 1 here; set it",
    )
    return crowd["iscrowd"]


def _areas(annotations: list[dict], describe: Callable[[int], str], problems: Problems) -> np.ndarray:
    """[A] values of `area`, nan where it is absent."""
    values = column(annotations, "area")
    absent = np.fromiter((v in ABSENT for v in values), bool, count=len(values))
    if absent.any():
        values = [0 if v in ABSENT else v for v in values]
    areas, wrong = to_numbers(values)
    problems.stop(
        sorted({*wrong, *np.flatnonzero(areas < 0).tolist()}),
        lambda i: f"{describe(i)}: area is {show(annotations[i]['area'])}",
        "not a number of square pixels; correct it, or leave it out",
    )
    areas[absent] = np.nan
    return areas
