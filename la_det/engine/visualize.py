"""A picture of ground truth beside detections."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from detectron2.evaluation import inference_context
from PIL import Image
from torch import nn

from la_det.data.images import read_image
from la_det.drawing import Drawer

MIN_SIDE = 384  # small images are enlarged so that labels can be read


def save_predictions(
    model: nn.Module, test_loader: Mapping, path: Path, *, num_images: int = 8, columns: int = 2, min_score: float = 0.3
) -> None:
    """Draw evenly spaced images of a test set, each with its ground truth left and its detections right.

    Args:
        test_loader: LazyConfig of the test loader, with `dataset`, `dataset.names` and `mapper`.
        columns: image pairs per row of the picture.
        min_score: smallest score of a detection that is drawn.
    """
    records = instantiate(test_loader.dataset)
    mapper = instantiate(test_loader.mapper)
    names = test_loader.dataset.names
    metadata = MetadataCatalog.get(names if isinstance(names, str) else names[0])
    chosen = np.linspace(0, len(records) - 1, min(num_images, len(records))).astype(int)
    with inference_context(model), torch.no_grad():
        pairs = [_draw_pair(model, records[i], mapper, metadata, min_score) for i in chosen]
    Image.fromarray(_grid(pairs, columns)).save(path)


def _draw_pair(model: nn.Module, record: dict, mapper, metadata, min_score: float) -> np.ndarray:
    instances = model([mapper(record)])[0]["instances"].to("cpu")
    image = read_image(record["file_name"], "RGB")
    drawer = Drawer(metadata, scale=max(1.0, MIN_SIDE / min(image.shape[:2])))
    detected = drawer.detections(image, instances[instances.scores >= min_score])
    return np.concatenate((drawer.ground_truths(image, record), detected), axis=1)


def _grid(images: list[np.ndarray], columns: int, gap: int = 8) -> np.ndarray:
    """Place RGB images [H_i, W_i, 3] row by row on white cells, which hold the largest image."""
    height, width = (max(image.shape[axis] for image in images) + gap for axis in (0, 1))
    rows = -(-len(images) // columns)
    canvas = np.full((rows * height, min(columns, len(images)) * width, 3), 255, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * height, i % columns * width
        canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas
