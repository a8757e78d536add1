"""A data set as a detector sees it: headers of images, sizes of objects, and objects that can get no positive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data import transforms as T
from detectron2.structures import Boxes, Instances
from matplotlib.figure import Figure
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track
from torch import Tensor

from la_det.build import build_model
from la_det.data.images import ImageHeader, explain_size, read_header
from la_det.data.table import Records
from la_det.errors import UserError
from la_det.modeling.criteria import Criterion
from la_det.modeling.meta_arch import AssignmentDetector
from la_det.structures import DensePredictions, Targets
from la_det.visualization.style import level_colour

DIVISIBILITY = 32  # inputs are padded to multiples of this
THREADS = 8  # number of threads that read headers
DRAWS = 3  # number of random predictions
AT_A_TIME = 32  # objects that are looked at together, each with a copy of its image's predictions
SIZES = {"small": 32.0, "medium": 96.0, "large": np.inf}  # COCO's upper bounds of sides, in pixels of the image
LEVELS = ("P3", "P4", "P5", "P6", "P7")
SIZE_BOUNDS = (64.0, 128.0, 256.0, 512.0)  # FCOS's bounds between levels: pixels from a point to the farthest side


@dataclass
class Headers:
    """What the image files of a data set say about themselves.

    Attributes:
        modes: Pillow's name of each kind of pixels -> number of images.
        turned, animated: number of images that an EXIF orientation turns, and of images with several pictures.
        unreadable: messages about files that cannot be read or have another size than the annotations say.
    """

    modes: Counter = field(default_factory=Counter)
    turned: int = 0
    animated: int = 0
    unreadable: list[str] = field(default_factory=list)


def read_headers(records: Records) -> Headers:
    """Read the headers of all image files, with a progress bar."""
    found = Headers()
    with ThreadPoolExecutor(THREADS) as pool:
        results = pool.map(lambda i: _header(records, i), range(len(records)))
        for header in track(results, "headers of images", total=len(records), console=Console(stderr=True)):
            if isinstance(header, str):
                found.unreadable.append(header)
                continue
            found.modes[header.mode] += 1
            found.turned += header.turned
            found.animated += header.frames > 1
    return found


def _header(records: Records, index: int) -> ImageHeader | str:
    """The header of an image, or a message that says what is wrong."""
    path = records.file_name(index)
    try:
        header = read_header(path)
    except UserError as error:
        return str(error)
    annotated = tuple(records.sizes[records.images()[index]].tolist())
    return header if header.size == annotated else explain_size(path, header, header.size, annotated)


@dataclass(frozen=True)
class NetworkBoxes:
    """G objects as a network gets them in an evaluation.

    Attributes:
        boxes: [G, 4] XYXY in pixels of the network's input.
        sides: [G] square roots of the areas, in pixels of the image.
        classes: [G] class numbers.
        input_sizes: [G, 2] height and width of the object's image after padding.
    """

    boxes: np.ndarray
    sides: np.ndarray
    classes: np.ndarray
    input_sizes: np.ndarray


def network_boxes(config: DictConfig, records: Records, count: int) -> NetworkBoxes:
    """`count` evenly spaced objects after the config's resizing, without regions to ignore."""
    images = records.annotation_images()
    objects = np.flatnonzero(~records.crowd & np.isin(images, records.images()))
    objects = objects[np.linspace(0, len(objects) - 1, min(count, len(objects))).astype(int)]
    images, boxes = images[objects], records.boxes[objects]
    corners = np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1)
    augmentations = T.AugmentationList(instantiate(config.dataloader.test.mapper.augmentations))
    input_sizes = np.zeros((len(objects), 2), dtype=np.int64)
    sizes, kind = np.unique(records.sizes[images], axis=0, return_inverse=True)
    for i, (height, width) in enumerate(sizes.tolist()):
        blank = T.AugInput(np.zeros((height, width, 3), np.uint8))
        transforms, of = augmentations(blank), kind.ravel() == i
        corners[of] = transforms.apply_box(corners[of])
        input_sizes[of] = -(-np.array(blank.image.shape[:2]) // DIVISIBILITY) * DIVISIBILITY
    sides = np.sqrt(boxes[:, 2] * boxes[:, 3])
    return NetworkBoxes(corners, sides, records.labels[objects], input_sizes)


def without_positive(config: DictConfig, objects: NetworkBoxes) -> dict[str, np.ndarray]:
    """For each criterion of a config's model: [G] bool, whether an object gets no positive even alone in its image.

    Predictions are those of random weights on noise. An object counts if it gets no positive in any of DRAWS
    predictions. So its place and size are the reason.

    Raises:
        UserError: the model is no `AssignmentDetector`, or its criteria need masks.
    """
    torch.manual_seed(config.train.seed)
    model = build_model(config).eval()
    if not isinstance(model, AssignmentDetector) or model.mask_inference is not None:
        raise UserError("only detectors of boxes whose assignment is la_det's can be looked at; choose another config")
    names = [f"{type(c.matcher).__name__}{f' ({c.branch})' if c.branch != 'main' else ''}" for c in model.criteria]
    lacking = {name: np.ones(len(objects.boxes), dtype=bool) for name in names}
    for size, rows in _by_input_size(objects):
        instances = Instances(
            size,
            gt_boxes=Boxes(torch.from_numpy(objects.boxes[rows])),
            gt_classes=torch.from_numpy(objects.classes[rows].astype(np.int64)),
        )
        targets = Targets.from_instances([instances], model.device)
        for _ in range(DRAWS):
            predictions = _predictions_on_noise(model, size)
            for name, criterion in zip(names, model.criteria, strict=True):
                lacking[name][rows] &= ~_gets_positive(criterion, predictions[criterion.branch], targets).cpu().numpy()
    return lacking


def _by_input_size(objects: NetworkBoxes) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    sizes, kind = np.unique(objects.input_sizes, axis=0, return_inverse=True)
    for i, size in enumerate(sizes.tolist()):
        yield tuple(size), np.flatnonzero(kind.ravel() == i)


@torch.no_grad()
def _predictions_on_noise(model: AssignmentDetector, size: tuple[int, int]) -> dict[str, DensePredictions]:
    shapes = [model.backbone.output_shape()[name] for name in model.in_features]
    features = [
        torch.randn(1, shape.channels, *(-(-side // shape.stride) for side in size), device=model.device)
        for shape in shapes
    ]
    return model.head(features)


@torch.no_grad()
def _gets_positive(criterion: Criterion, predictions: DensePredictions, targets: Targets) -> Tensor:
    """[G] bool, whether each of G ground truths gets a positive when it is alone in the image."""
    found = torch.zeros(len(targets), dtype=torch.bool, device=targets.boxes.device)
    for gts in torch.arange(len(targets), device=found.device).split(AT_A_TIME):
        copies = predictions.of_images(torch.zeros_like(gts))
        pairs = criterion.assign(copies, targets.alone(gts), 0.0).assignment.pairs
        found[gts[pairs.gt.unique()]] = True
    return found


def size_bounds(config: DictConfig) -> tuple[float, ...] | None:
    """Bounds between the levels of a config with size ranges; None for another one."""
    for criterion in config.model.get("criteria", ()):
        ranges = criterion.matcher.get("size_ranges")
        if ranges:
            return tuple(float(high) for _, high in list(ranges)[:-1])
    return None


def level_of(boxes: np.ndarray, bounds: Sequence[float]) -> np.ndarray:
    """[G] index of the level whose size range contains the centre of each box of [G, 4] XYXY."""
    return np.searchsorted(bounds, (boxes[:, 2:] - boxes[:, :2]).max(axis=1) / 2)


def draw(
    classes: Sequence[str], counts: np.ndarray, boxes: np.ndarray, levels: np.ndarray, lacking: dict[str, np.ndarray]
) -> Figure:
    """Figure of the objects of each class, the sides on each level, and the objects without positive by scheme.

    Args:
        counts: [K] number of objects of each class.
        boxes: [G, 4] XYXY in pixels of the network's input.
        levels: [G] from `level_of`.
        lacking: name of each scheme -> [G] bool, whether an object can get no positive.
    """
    figure = Figure(figsize=(15, 4.8), layout="constrained")
    of_classes, of_sides, of_schemes = figure.subplots(1, 3)
    most = np.argsort(-counts, kind="stable")[:25]
    of_classes.barh([classes[i] for i in most][::-1], counts[most][::-1], color="0.5")
    of_classes.set_title(f"objects of each class ({len(most)} of {len(classes)})")

    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    of_sides.hist(
        [sides[levels == i] for i in range(len(LEVELS))],
        bins=np.geomspace(max(sides.min(), 0.5), max(sides.max(), 1.0) * 1.01, 41),
        stacked=True,
        color=[level_colour(i) for i in range(len(LEVELS))],
        label=[f"{name}: {np.mean(levels == i):.0%}" for i, name in enumerate(LEVELS)],
    )
    of_sides.set_xscale("log", base=2)
    of_sides.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    of_sides.set_xlabel("square root of the area in the network's input, pixels")
    of_sides.set_title("objects by the level of their size")
    of_sides.margins(y=0.35)  # room for the legend
    of_sides.legend(loc="upper left", ncols=3)

    names = list(lacking)[::-1]
    of_schemes.barh(names, [100 * lacking[name].mean() for name in names], color="0.5")
    of_schemes.set_xlabel("% of the objects")
    of_schemes.set_title("objects that can get no positive")
    return figure
