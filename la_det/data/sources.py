"""Data sets by name: one string says what is read from where, on the command line and in configs.

A name is registered in Detectron2's `DatasetCatalog`, or is `<kind>:<paths and options, with commas between them>`:

- `coco:IMAGES,JSON`: a folder of images and COCO's JSON file;
- `yolo:DATA.yaml,split=train`: one part of a data set of Ultralytics' YOLO;
- `voc:FOLDER` or `voc:FOLDER,split=train`: Pascal VOC's XML files, all of them or those of a list in `ImageSets/Main`;
- `odgt:IMAGES,ODGT`: CrowdHuman's form, with `tag=...` for other objects than `person`;
- `registered:NAME`: a registered data set with options.

Every kind has two options. `class=NAME`, which may be repeated, uses only these classes. `boxes=...` is the convention
of the boxes, a key of `la_det.data.boxes.CONVENTIONS`. A path or name with a comma stands in double quotes, as in CSV.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from weakref import WeakKeyDictionary

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from la_det.data.boxes import CONVENTIONS
from la_det.data.build import Options
from la_det.data.coco import read_coco
from la_det.data.odgt import read_odgt_records
from la_det.data.problems import show
from la_det.data.root import is_below_root, why_missing
from la_det.data.table import Records
from la_det.data.voc import read_voc, voc_files, voc_splits
from la_det.data.yolo import read_yolo, yolo_files, yolo_splits
from la_det.errors import UserError

FORMAT = "coco:IMAGES,JSON[,IMAGES,JSON...] | yolo:DATA.yaml | voc:DIR[,DIR...] | odgt:IMAGES,ODGT[,IMAGES,ODGT...]"
PATHS = {"coco": 2, "odgt": 2, "voc": 1, "yolo": 1, "registered": 1}  # number of paths of one data set
OPTIONS = ("boxes", "class", "split", "tag")
_KIND_OF_SUFFIX = {".json": "coco", ".odgt": "odgt", ".yaml": "yolo", ".yml": "yolo"}

_called: WeakKeyDictionary[Callable, Records] = WeakKeyDictionary()  # registered function -> its records


@dataclass(frozen=True)
class DataSource:
    """One data set. `str` writes its name, and `parse` reads the name."""

    kind: str
    paths: tuple[str, ...]
    options: Options = Options()

    def __str__(self) -> str:
        options = {key: getattr(self.options, key) for key in ("boxes", "split", "tag")}
        fields = [f"{key}={value}" for key, value in options.items() if value is not None]
        return f"{self.kind}:{_write_fields([*self.paths, *fields, *(f'class={c}' for c in self.options.classes)])}"

    def read(self) -> Records:
        """The checked records.

        Raises:
            UserError: something cannot be read or is surely wrong.
        """
        if self.kind in ("coco", "odgt") and not PathManager.isdir(self.paths[0]):
            raise UserError(f"{self.paths[0]}: no such folder of images")
        match self.kind:
            case "coco":
                images, file = self.paths
                return read_coco(file, images, self.options)
            case "odgt":
                images, file = self.paths
                return read_odgt_records(file, images, self.options)
            case "voc":
                return read_voc(self.paths[0], self.options)
            case "yolo":
                return read_yolo(self.paths[0], self.options)
        return _read_registered(self.paths[0], self.options)

    def files(self) -> Sequence[str]:
        """Paths of the files and folders that `read` reads."""
        match self.kind:
            case "voc":
                return voc_files(self.paths[0])
            case "yolo":
                return yolo_files(self.paths[0], self.options)
            case "registered":
                return [MetadataCatalog.get(self.paths[0]).get("json_file", "")]
        return self.paths

    def splits(self) -> tuple[str, str] | None:
        """Names of the parts for training and for testing; None unless one path holds both and no part is chosen."""
        if self.options.split is None and self.kind in ("voc", "yolo"):
            return (voc_splits if self.kind == "voc" else yolo_splits)(self.paths[0])
        return None


def is_source(name: str) -> bool:
    """Whether a name has the form `<kind>:...` rather than being one of Detectron2's catalog."""
    return name.partition(":")[0] in PATHS and ":" in name


def parse(text: str, form: str = FORMAT) -> list[DataSource]:
    """The data sets that a name or a command-line option lists, with absolute paths.

    Raises:
        UserError: the text is malformed.
    """
    kind = text.partition(":")[0]
    if kind not in PATHS:
        raise UserError(_no_name(text) or f"{text}: it has the form {form}")
    fields = _read_fields(text)
    chosen: dict[str, list[str]] = {key: [] for key in OPTIONS}
    paths = []
    for field in fields:
        key, equals, value = field.partition("=")
        if equals and key in chosen:
            chosen[key].append(value)
        else:
            paths.append(field)
    number = PATHS[kind]
    if not paths or len(paths) % number or not all(paths):
        raise UserError(
            f"{text}: it has the form {form}; a path with a comma stands in double quotes, within "
            "single ones for the shell"
        )
    options = Options(
        boxes=_only(chosen, "boxes", text),
        classes=tuple(chosen["class"]),
        split=_only(chosen, "split", text),
        tag=_only(chosen, "tag", text),
    )
    if options.boxes is not None and options.boxes not in CONVENTIONS:
        raise UserError(f"{text}: boxes={options.boxes} is none of {', '.join(CONVENTIONS)}")
    if kind != "registered":
        paths = [path if "://" in path else os.path.abspath(os.path.expanduser(path)) for path in paths]
    return [DataSource(kind, tuple(paths[i : i + number]), options) for i in range(0, len(paths), number)]


def parse_one(name: str) -> DataSource:
    """The data set with this name.

    Raises:
        UserError: the name is malformed or lists several data sets.
    """
    sources = parse(name)
    if len(sources) != 1:
        raise UserError(f"{name}: {len(sources)} data sets in one name; give a list of names, of one data set each")
    return sources[0]


def train_and_test(option: str) -> tuple[DataSource, list[DataSource]]:
    """The data set for training and the data sets for evaluation, from a command-line option.

    The first data set is for training, all further ones are for evaluation. A single one is for both.
    """
    first, *others = parse(option)
    splits = first.splits()
    if splits and not others:
        train, test = (replace(first, options=replace(first.options, split=split)) for split in splits)
        return train, [test]
    return first, others or [first]


def _no_name(path: str) -> str:
    """A message with the name of the data set, if a file or a VOC folder is given in its place; else ""."""
    kind = _KIND_OF_SUFFIX.get(os.path.splitext(path)[1].lower()) if os.path.isfile(path) else None
    if os.path.isdir(os.path.join(path, "Annotations")):
        kind = "voc"
    if kind is None:
        return ""
    return f"{path}: a path is no name of a data set; write {DataSource(kind, ('IMAGES', path)[-PATHS[kind] :])}"


def missing(name: str) -> str:
    """What to do about the first file or folder of a data set that is missing, one line; "" if none is known to be.

    Nothing is read. Data that are generated at first use (Shapes) are not missing.
    """
    if is_source(name):
        source = parse_one(name)
        return missing(source.paths[0]) if source.kind == "registered" else _missing_path(source.paths)
    if name not in DatasetCatalog:
        return ""
    metadata = MetadataCatalog.get(name)
    paths = (_annotation_file(name), metadata.get("image_root"))
    return _missing_path([path for path in paths if path])


def _annotation_file(name: str) -> str | None:
    """The annotation file of a registered data set, if its metadata have one."""
    metadata = MetadataCatalog.get(name)
    return metadata.get("json_file") or metadata.get("odgt_file")


def _missing_path(paths: Sequence[str]) -> str:
    for path in paths:
        try:
            if not PathManager.exists(path):
                return why_missing(path)
        except NotImplementedError:  # the path is of a handler that fetches or generates the data
            return ""
    return ""


def _check_annotation_file(name: str) -> None:
    """Raise `UserError` if the annotation file of a registered data set is missing."""
    file = _annotation_file(name)
    reason = _missing_path([file]) if file else ""
    if reason:
        raise UserError(f"{name}: {reason}")


def is_read_here(name: str) -> bool:
    """Whether this project's readers read the data set; its records then stay in memory."""
    if is_source(name) or name not in DatasetCatalog:
        return is_source(name)
    return _is_coco(name) or MetadataCatalog.get(name).get("odgt_file") is not None


def labels_of(names: Sequence[str]) -> list[str]:
    """Short, distinct labels of data sets, for results and folders: the registered name, or the name of a file."""
    labels = []
    for name in names:
        if is_source(name):
            source = parse_one(name)
            name = "_".join(filter(None, (Path(source.paths[-1]).stem, source.options.split)))
        labels.append(name)
    counts, taken, unique = Counter(labels), set(labels), []
    for i, label in enumerate(labels, start=1):
        if counts[label] > 1:
            label = next(name for number in count(i) if (name := f"{label}_{number}") not in taken)
        taken.add(label)
        unique.append(label)
    return unique


def read_source(name: str) -> Records | list[dict]:
    """Checked records of the data set with this name; a list of dicts if a registered function of others makes them.

    Raises:
        UserError: there is no such data set, it cannot be read, or something in it is surely wrong.
    """
    if is_source(name):
        source = parse_one(name)
        return _describe_classes(name, _read_once(source, _fingerprint(source.files())))
    if name not in DatasetCatalog:
        unknown = f"{name}: no such data set; register it in Detectron2's DatasetCatalog, or write {FORMAT}"
        raise UserError(_no_name(name) or unknown)
    if _is_coco(name) or is_below_root(_annotation_file(name) or ""):
        _check_annotation_file(name)  # others may name a file that their function does not read
    if _is_coco(name):
        metadata = MetadataCatalog.get(name)
        paths = (metadata.json_file, metadata.image_root)
        return _describe_classes(name, _read_coco_once(*paths, _fingerprint(paths[:1])))
    return _call_registered(name)


@functools.lru_cache(maxsize=8)
def _read_once(source: DataSource, fingerprint: str) -> Records:
    """The records, which training, evaluation and its ground truths share."""
    records = source.read()
    records.problems.log()
    return records


@functools.lru_cache(maxsize=8)
def _read_coco_once(json_file: str, image_root: str, fingerprint: str) -> Records:
    records = read_coco(json_file, image_root)
    records.problems.log()
    return records


def _fingerprint(paths: Sequence[str]) -> str:
    """A value that changes with the files: with their paths, sizes and times."""
    found = hashlib.sha256()
    for path in paths:
        try:
            status = os.stat(path)
            found.update(repr((path, status.st_mtime_ns, status.st_size)).encode())
        except (OSError, ValueError):  # a missing file is no error here, nor is an impossible name
            found.update(repr(path).encode())
    return found.hexdigest()


def _is_coco(name: str) -> bool:
    """Whether Detectron2's own reader of COCO files would read the data set; ours takes its place."""
    function = DatasetCatalog[name]
    function = function.func if isinstance(function, functools.partial) else function
    metadata = MetadataCatalog.get(name)
    of_coco = getattr(function, "__module__", "") == "detectron2.data.datasets.coco"
    # Data sets with keypoints are for other detectors, which need Detectron2's reader.
    return of_coco and metadata.get("json_file") is not None and metadata.get("keypoint_names") is None


def _describe_classes(name: str, records: Records) -> Records:
    """Put the classes into Detectron2's metadata, as Detectron2's readers do."""
    metadata = MetadataCatalog.get(name)
    found = {
        "thing_classes": list(records.classes),
        "thing_dataset_id_to_contiguous_id": {number: i for i, number in enumerate(records.class_ids)},
    }
    if is_source(name):  # the file may have changed since it was read
        for key in found:
            metadata.__dict__.pop(key, None)
    for key, value in found.items():
        known = metadata.get(key)
        if known is not None and known != value:
            raise UserError(
                f"{records.source}: its classes are {show(list(records.classes))}, those registered for {name} "
                f"{show(metadata.get('thing_classes'))}; register the data set under another name"
            )
    metadata.set(**found)
    return records


def _read_registered(name: str, options: Options) -> Records:
    if name in DatasetCatalog and _is_coco(name):
        _check_annotation_file(name)
        metadata = MetadataCatalog.get(name)
        return read_coco(metadata.json_file, metadata.image_root, options)
    raise UserError(f"registered:{name}: options are only for data sets in COCO's form that Detectron2 has registered")


def _call_registered(name: str) -> Records | list[dict]:
    """The records that the function registered for a name returns. Its errors become a `UserError`."""
    function = DatasetCatalog[name]
    if function in _called:
        return _called[function]
    try:
        records = function()
    except (LookupError, TypeError, ValueError, AssertionError, OSError, ImportError) as error:
        if isinstance(error, FileNotFoundError) and error.filename:
            raise UserError(f"{name}: {why_missing(error.filename)}") from error
        raise UserError(f"{name}: the function that is registered for it fails ({error!r}); correct it") from error
    if isinstance(records, Records):
        records.problems.log()
        _called[function] = records
    elif not isinstance(records, list) or not records or not all(isinstance(record, dict) for record in records):
        raise UserError(f"{name}: the function that is registered for it gives no list of dicts; correct it")
    return records


def _only(chosen: dict[str, list[str]], key: str, text: str) -> str | None:
    if len(chosen[key]) > 1:
        raise UserError(f"{text}: {key} is there {len(chosen[key])} times; give it once")
    return chosen[key][0] if chosen[key] else None


def _read_fields(text: str) -> list[str]:
    """The paths and options in a name `<kind>:...`."""
    try:
        return next(csv.reader([text.partition(":")[2]], strict=True), [])
    except csv.Error as error:
        raise UserError(f"{text}: {error}; a path with a comma stands in double quotes") from error


def _write_fields(fields: Sequence[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(fields)
    return buffer.getvalue()
