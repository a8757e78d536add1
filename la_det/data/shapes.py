"""Shapes: data sets of drawn objects, generated from a seed as JPEG files with COCO-format annotations.

Every image is a low-frequency random background with random lines, objects in one random colour each (independent of
the class), and pixel noise. The objects are composed from front to back: an object keeps the pixels that no object in
front of it has taken. An object that keeps less than a quarter of its area is left out of the picture *and* of the
annotations. So everything visible is annotated. Boxes, areas and masks are those of the visible pixels.

- ``shapes_tiny``, ``shapes``: ten classes in any rotation; a few groups of small objects with ``iscrowd`` = 1.
- ``shapes_tiny_2k``: 2,000 images for the validation of what ``shapes_tiny`` trained, the first 300 of which are those
  of ``shapes_tiny``; none for training.
- ``shapes_crowd``: one class in clusters, as in CrowdHuman. ``bbox`` is the box of the whole figure, which may reach
  beyond the image, and ``bbox_vis`` the box of its visible part. Ignored boxes have ``iscrowd`` = 1. The same boxes are
  written to ``annotations/{train,val}.odgt``.

Files of a data set: ``{train,val}/<image id>.jpg``, ``annotations/{train,val}.json`` and ``manifest.json``.
"""

import hashlib
import json
import logging
import multiprocessing
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from filelock import FileLock
from pycocotools import mask as coco_mask
from rich.console import Console
from rich.progress import track

logger = logging.getLogger(__name__)

VERSION = 1  # increase it with every change of what is drawn or written
SPLITS = ("train", "val")

MIN_VISIBLE = 0.25  # an object with a smaller visible share is not drawn
IGNORE_VISIBLE = 0.35  # shapes_crowd: a figure with a smaller visible share is annotated as ignored
GROUP_RATE, CROWD_GROUP_RATE = 0.06, 0.4  # share of the images with objects that hold a group
JPEG_QUALITY = 92


@dataclass(frozen=True)
class ShapesSpec:
    """Parameters of a data set; together with `VERSION` they determine every byte.

    `image_size`, `min_extent` and `max_extent` are in pixels. An object's extent is the longer side of its box before
    occlusion. `max_objects` is the upper bound of the objects of an image, where a group counts as one object.
    """

    name: str
    image_size: int
    num_train: int
    num_val: int
    max_objects: int
    min_extent: int
    max_extent: int
    crowd: bool = False
    seed: int = 0

    @property
    def classes(self) -> list[str]:
        return ["person"] if self.crowd else list(OUTLINES)

    @property
    def splits(self) -> list[str]:
        """Those of `SPLITS` that have images."""
        return [split for split in SPLITS if self.num_images(split)]

    def num_images(self, split: str) -> int:
        return self.num_train if split == "train" else self.num_val


SHAPES = {
    spec.name: spec
    for spec in (
        ShapesSpec("shapes_tiny", 128, 1500, 300, max_objects=8, min_extent=10, max_extent=77),
        ShapesSpec("shapes_tiny_2k", 128, 0, 2000, max_objects=8, min_extent=10, max_extent=77),
        ShapesSpec("shapes", 256, 8000, 1000, max_objects=20, min_extent=10, max_extent=153),
        ShapesSpec("shapes_crowd", 256, 2000, 400, max_objects=60, min_extent=16, max_extent=128, crowd=True),
    )
}


# Outlines: polygons [n, 2] of (x, y), y downwards, of any scale and position.


def _circle(points: int, start: float = 0.0, stop: float = 2 * np.pi) -> np.ndarray:
    angles = np.linspace(start, stop, points, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _crescent() -> np.ndarray:
    outer = _circle(48, 0.28 * np.pi, 1.72 * np.pi)
    centre = np.array([0.55, 0.0])
    tip = outer[0] - centre
    angle, radius = np.arctan2(tip[1], tip[0]), np.hypot(*tip)
    return np.concatenate([outer, centre + radius * _circle(48, 2 * np.pi - angle, angle)])


OUTLINES: dict[str, np.ndarray] = {
    "disc": _circle(64),
    "triangle": _circle(3),
    "square": _circle(4),
    "pentagon": _circle(5),
    "hexagon": _circle(6),
    "star": _circle(10) * np.where(np.arange(10) % 2, 0.4, 1.0)[:, None],
    "cross": np.array(
        [(1, 3), (1, 1), (3, 1), (3, -1), (1, -1), (1, -3), (-1, -3), (-1, -1), (-3, -1), (-3, 1), (-1, 1), (-1, 3)]
    ),
    "ellipse": _circle(64) * (1.0, 0.5),
    "arrow": np.array([(10, 0), (2, 6), (2, 2), (-9, 2), (-9, -2), (2, -2), (2, -6)]),
    "crescent": _crescent(),
}
HEAD = 0.17 * _circle(32) + (0.0, -0.83)
BODY = np.array(
    [(0.18, -0.64), (0.36, -0.5), (0.3, 0.2), (0.2, 1), (-0.2, 1), (-0.3, 0.2), (-0.36, -0.5), (-0.18, -0.64)]
)


@dataclass
class Item:
    """One drawn thing. `mask` [h, w] uint8 fits tightly; its top left pixel lies at (`x`, `y`), perhaps off the image.

    Items with the same `label` (>= 1) form a group and share an annotation. `head` (XYWH) is only for shapes_crowd.
    """

    label: int
    category: int
    mask: np.ndarray
    x: int
    y: int
    group: bool = False
    head: list[int] | None = None

    @property
    def box(self) -> list[int]:
        height, width = self.mask.shape
        return [self.x, self.y, width, height]


def _rasterise(polygons: list[np.ndarray], extent: int, angle: float) -> list[np.ndarray]:
    """Masks [h, w] uint8 of the polygons, rotated by `angle` and scaled together to `extent` pixels, on one canvas."""
    cos, sin = np.cos(angle), np.sin(angle)
    rotated = [polygon @ np.array([[cos, sin], [-sin, cos]]) for polygon in polygons]
    low, high = np.concatenate(rotated).min(axis=0), np.concatenate(rotated).max(axis=0)
    scale = (extent - 1) / (high - low).max()  # pixels are counted, first and last included
    width, height = np.rint((high - low) * scale).astype(int) + 1
    masks = []
    for polygon in rotated:
        points = np.rint((polygon - low) * scale * 256).astype(np.int32)
        masks.append(cv2.fillPoly(np.zeros((height, width), np.uint8), [points], 1, shift=8))
    return masks


def _extents(rng: np.random.Generator, low: float, high: float, size: int | None = None) -> np.ndarray:
    """Log-uniform integers from `low` to `high`, both included."""
    return np.exp(rng.uniform(np.log(low), np.log(high + 1), size)).astype(int)


def _shape(rng: np.random.Generator, label: int, category: int, extent: int) -> Item:
    (mask,) = _rasterise([list(OUTLINES.values())[category]], extent, rng.uniform(0, 2 * np.pi))
    return Item(label, category, mask, 0, 0)


def _figure(rng: np.random.Generator, label: int, extent: int) -> Item:
    head, body = _rasterise([HEAD, BODY], extent, rng.normal(0, 0.08))
    return Item(label, 0, head | body, 0, 0, head=list(cv2.boundingRect(head)))


def _move(item: Item, x: float, y: float) -> Item:
    item.x, item.y = int(x), int(y)
    if item.head:
        item.head[0] += item.x
        item.head[1] += item.y
    return item


def _inside(item: Item, size: int, x: float, y: float) -> Item:
    """Move to (x, y), but not over the image's border."""
    height, width = item.mask.shape
    return _move(item, np.clip(x, 0, size - width), np.clip(y, 0, size - height))


def _group(rng: np.random.Generator, size: int, members: list[Item]) -> list[Item]:
    """The items close together in one place of the image, as one group."""
    spread = 0.6 * len(members) ** 0.5 * np.mean([max(item.mask.shape) for item in members])
    corner = rng.uniform(0, max(size - spread, 1), 2)
    for item in members:
        _inside(item, size, *(corner + rng.uniform(0, spread, 2)))
        item.group = True
    return members


def _sample_shapes(spec: ShapesSpec, rng: np.random.Generator) -> list[Item]:
    """Items of a `shapes` or `shapes_tiny` image, the rearmost first, all completely inside the image."""
    count = rng.integers(spec.max_objects + 1)
    group_at = rng.integers(count) if count and rng.random() < GROUP_RATE else -1
    items = []
    for index in range(count):
        label, category = index + 1, int(rng.integers(len(OUTLINES)))
        if index == group_at:
            extents = _extents(rng, spec.min_extent, 2 * spec.min_extent, rng.integers(6, 13))
            items += _group(rng, spec.image_size, [_shape(rng, label, category, extent) for extent in extents])
        else:
            item = _shape(rng, label, category, _extents(rng, spec.min_extent, spec.max_extent))
            height, width = item.mask.shape
            x, y = rng.integers(spec.image_size - width + 1), rng.integers(spec.image_size - height + 1)
            items.append(_move(item, x, y))
    return items


def _sample_crowd(spec: ShapesSpec, rng: np.random.Generator) -> list[Item]:
    """Items of a `shapes_crowd` image, the rearmost first: a distant crowd as a group, then figures in clusters."""
    count = rng.integers(spec.max_objects + 1)
    items = []
    if count and rng.random() < CROWD_GROUP_RATE:
        extents = _extents(rng, 8, 14, rng.integers(8, 25))
        items += _group(rng, spec.image_size, [_figure(rng, 1, extent) for extent in extents])
    clusters = rng.integers(2, 7)
    centres = rng.uniform(0.1, 0.9, (clusters, 2)) * spec.image_size
    typical = _extents(rng, 1.25 * spec.min_extent, 0.6 * spec.max_extent, clusters)
    for index in range(count):
        cluster = rng.integers(clusters)
        extent = np.clip(typical[cluster] * rng.uniform(0.75, 1.33), spec.min_extent, spec.max_extent)
        item = _figure(rng, index + 2, int(extent))
        x, y = rng.normal(centres[cluster], (0.8 * extent, 0.4 * extent))
        items.append(_move(item, x - item.mask.shape[1] / 2, y - item.mask.shape[0] / 2))
    return items


def _background(size: int, rng: np.random.Generator) -> np.ndarray:
    """Canvas [size, size, 3] float32: colours that change slowly, and up to 8 lines."""
    cells = rng.integers(2, 6)
    coarse = rng.uniform(0, 255, (cells, cells, 3)).astype(np.float32)
    canvas = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC).clip(0, 255)
    for _ in range(rng.integers(9)):
        ends = rng.integers(0, size, (2, 2)).tolist()
        cv2.line(canvas, ends[0], ends[1], rng.uniform(0, 255, 3).tolist(), int(rng.integers(1, 4)))
    return canvas


def draw_scene(spec: ShapesSpec, split: str, index: int) -> tuple[np.ndarray, np.ndarray, list[Item]]:
    """Draw image `index` (from 0) of a split, independently of all other images.

    Returns the image [size, size, 3] uint8 BGR, the label [size, size] uint8 of the item to which each pixel belongs
    (0 = background), and the items that are drawn, the rearmost first.
    """
    rng = np.random.default_rng([spec.seed, SPLITS.index(split), index])
    size = spec.image_size
    items = (_sample_crowd if spec.crowd else _sample_shapes)(spec, rng)
    canvas = _background(size, rng)
    owner = np.zeros((size, size), np.uint8)
    drawn = []
    for item in reversed(items):
        x, y, width, height = item.box
        window = slice(max(y, 0), max(y + height, 0)), slice(max(x, 0), max(x + width, 0))
        inside = slice(max(-y, 0), max(size - y, 0)), slice(max(-x, 0), max(size - x, 0))
        visible = (item.mask[inside] > 0) & (owner[window] == 0)
        if np.count_nonzero(visible) < MIN_VISIBLE * np.count_nonzero(item.mask):
            continue
        owner[window][visible] = item.label
        colour, grain = rng.uniform(0, 255, 3), rng.uniform(2, 16)
        canvas[window][visible] = colour + grain * rng.standard_normal((np.count_nonzero(visible), 3), np.float32)
        drawn.append(item)
    canvas += rng.uniform(1, 8) * rng.standard_normal(canvas.shape, np.float32)
    return np.rint(canvas).clip(0, 255).astype(np.uint8), owner, drawn[::-1]


def annotate(owner: np.ndarray, items: list[Item], crowd: bool) -> tuple[list[dict], list[dict]]:
    """COCO annotations of a drawn scene, without ids, and its CrowdHuman `gtboxes` (none unless `crowd`)."""
    if not items:
        return [], []
    by_label = {item.label: item for item in items}  # any member stands for its group
    masks = np.asfortranarray(owner[:, :, None] == np.array(list(by_label)), dtype=np.uint8)
    rles = coco_mask.encode(masks)
    visible_boxes = coco_mask.toBbox(rles).astype(int).tolist()
    areas = coco_mask.area(rles).tolist()
    annotations, gtboxes = [], []
    for item, rle, visible_box, area in zip(by_label.values(), rles, visible_boxes, areas, strict=True):
        segmentation = {"size": rle["size"], "counts": rle["counts"].decode("ascii")}
        annotation = {"category_id": item.category + 1, "iscrowd": int(item.group), "bbox": visible_box, "area": area}
        if crowd:
            whole_area = int(np.count_nonzero(item.mask))
            full_box = visible_box if item.group else item.box
            ignored = item.group or area < IGNORE_VISIBLE * whole_area
            annotation |= {"iscrowd": int(ignored), "bbox": full_box, "bbox_vis": visible_box}
            annotation["area"] = full_box[2] * full_box[3]  # as in conversions of CrowdHuman
            gtboxes.append(
                {
                    "tag": "mask" if item.group else "person",
                    "fbox": full_box,
                    "vbox": visible_box,
                    "hbox": full_box if item.group else item.head,
                    "extra": {"box_id": len(gtboxes), "occ": int(area < whole_area)}
                    | ({"ignore": 1} if ignored else {}),
                }
            )
        annotations.append(annotation | {"segmentation": segmentation})
    return annotations, gtboxes


def _write_image(spec: ShapesSpec, split: str, folder: Path, index: int) -> tuple[str, list[dict], list[dict]]:
    """Draw and write one image. Returns the file's SHA-256, and the image's annotations and gtboxes."""
    image, owner, items = draw_scene(spec, split, index)
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
    (folder / split / _file_name(index)).write_bytes(data)
    return hashlib.sha256(data).hexdigest(), *annotate(owner, items, spec.crowd)


def _file_name(index: int) -> str:
    return f"{index + 1:06d}.jpg"


def _write_split(spec: ShapesSpec, split: str, folder: Path, workers: int) -> dict[str, str]:
    """Write one split's images and annotation files. Returns the SHA-256 of each file by its path within `folder`."""
    count = spec.num_images(split)
    (folder / split).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    images, annotations, odgt, digests = [], [], [], {}
    write = partial(_write_image, spec, split, folder)
    with _mapper(workers) as mapper:
        written = track(mapper(write, range(count)), f"{spec.name}/{split}", count, console=Console(stderr=True))
        for index, (digest, found, gtboxes) in enumerate(written):
            image_id, name = index + 1, _file_name(index)
            images.append({"id": image_id, "file_name": name, "height": spec.image_size, "width": spec.image_size})
            for annotation in found:
                annotations.append({"id": len(annotations) + 1, "image_id": image_id} | annotation)
            odgt.append({"ID": Path(name).stem, "gtboxes": gtboxes})
            digests[f"{split}/{name}"] = digest
    categories = [{"id": number, "name": name} for number, name in enumerate(spec.classes, 1)]
    info = {"description": spec.name, "version": str(VERSION)}
    coco = {"info": info, "images": images, "annotations": annotations, "categories": categories}
    texts = {f"annotations/{split}.json": _dumps(coco)}
    if spec.crowd:
        texts[f"annotations/{split}.odgt"] = "".join(_dumps(line) + "\n" for line in odgt)
    for path, text in texts.items():
        (folder / path).write_text(text)
        digests[path] = hashlib.sha256(text.encode()).hexdigest()
    return digests


@contextmanager
def _mapper(workers: int) -> Iterator:
    if workers == 1:
        yield map
    else:
        with multiprocessing.Pool(workers) as pool:  # the `with` ends the processes, also at an interrupt
            yield partial(pool.imap, chunksize=16)


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _write_dataset(spec: ShapesSpec, folder: Path, workers: int) -> None:
    digests = {}
    for split in spec.splits:
        digests |= _write_split(spec, split, folder, workers)
    listing = "".join(f"{digests[path]}  {path}\n" for path in sorted(digests))
    manifest = {
        "version": VERSION,
        "spec": asdict(spec),
        "sha256": hashlib.sha256(listing.encode()).hexdigest(),  # hash of sha256sum's listing of all files, by path
        "drawn_with": {"numpy": np.__version__, "opencv": cv2.__version__},  # other releases may give other bytes
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def _read_manifest(folder: Path) -> dict:
    path = folder / "manifest.json"
    if not path.is_file():
        raise RuntimeError(f"{folder} exists, but has no manifest.json: it is not a generated data set. Move it away.")
    return json.loads(path.read_text())


def _is_complete(spec: ShapesSpec, folder: Path) -> bool:
    """Whether `folder` holds exactly this data set; False if the folder does not exist.

    Raises:
        RuntimeError: the folder is something else.
    """
    if not folder.exists():
        return False
    manifest = _read_manifest(folder)
    found = {"version": manifest.get("version"), **manifest.get("spec", {})}
    wanted = {"version": VERSION, **asdict(spec)}
    differing = [
        f"{key} {found.get(key)!r} instead of {wanted[key]!r}" for key in wanted if found.get(key) != wanted[key]
    ]
    if differing:
        raise RuntimeError(
            f"{folder} holds another data set: {', '.join(differing)}. Replace it with "
            f"`tools/make_shapes.py {spec.name} --root {folder.parent} --force`, or set another $DETECTRON2_DATASETS."
        )
    return True


def make_shapes(spec: ShapesSpec, root: Path, workers: int = 1) -> Path:
    """Generate a data set as `root/spec.name` unless it is there. Returns this folder.

    Any number of processes may call this function at once: one of them generates, and the others wait. The folder
    appears complete or not at all.

    Raises:
        RuntimeError: the folder exists and holds something else than this data set.
    """
    folder = root / spec.name
    if _is_complete(spec, folder):
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(_lock_file(spec, root)):
        if _is_complete(spec, folder):
            return folder
        logger.info("Generating the data set %s in %s", spec.name, folder)
        partial_folder = _partial_folder(spec, root)
        shutil.rmtree(partial_folder, ignore_errors=True)  # left by a killed process
        try:
            _write_dataset(spec, partial_folder, workers)
            os.rename(partial_folder, folder)
        except OSError:
            if not _is_complete(spec, folder):
                raise
        finally:
            shutil.rmtree(partial_folder, ignore_errors=True)
    return folder


def remove_shapes(spec: ShapesSpec, root: Path) -> None:
    """Remove the data set `root/spec.name` of any version, so that `make_shapes` generates it anew.

    Raises:
        RuntimeError: the folder has no manifest, so it was not generated.
    """
    folder = root / spec.name
    if not folder.exists():
        return
    _read_manifest(folder)
    with FileLock(_lock_file(spec, root)):
        discarded = _partial_folder(spec, root)
        shutil.rmtree(discarded, ignore_errors=True)
        os.rename(folder, discarded)  # first, so that an interruption leaves no half data set in place
        shutil.rmtree(discarded)


def _lock_file(spec: ShapesSpec, root: Path) -> Path:
    return root / f".{spec.name}.lock"


def _partial_folder(spec: ShapesSpec, root: Path) -> Path:
    # With the host's name, for file systems on which a lock does not reach other hosts: there the first rename wins.
    return root / f".{spec.name}.{platform.node()}.partial"
