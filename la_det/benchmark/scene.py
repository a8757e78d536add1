"""The scene of the matching benchmark: ground truths and informative predictions at real size.

There are two images, by default of 800 x 1333 pixels, padded to 800 x 1344 (R = 22,400 locations on strides 8 to 128).
Each has G ground truths in overlapping clusters. Predictions are noise plus a signal around the ground truths. The same
arguments give the same numbers.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

STRIDES = (8, 16, 32, 64, 128)
HEIGHT, WIDTH = 800, 1333
SIZE_DIVISIBILITY = 32  # both sides are padded to multiples of this


@dataclass(frozen=True)
class Scene:
    """Ground truths by image, and prediction maps by level, finest first.

    Attributes:
        boxes: [G, 4] XYXY pixels of each image.
        classes: [G] of each image.
        logits: [N, K, h, w] of each level.
        ltrb: [N, 4, h, w] distances in pixels of each level.
        quality, filter: [N, 1, h, w] logits of each level.
    """

    boxes: list[Tensor]
    classes: list[Tensor]
    logits: list[Tensor]
    ltrb: list[Tensor]
    quality: list[Tensor]
    filter: list[Tensor]


def make_scene(
    num_gts: int,
    num_classes: int = 80,
    num_images: int = 2,
    crowd: bool = False,
    seed: int = 0,
    size: tuple[int, int] = (HEIGHT, WIDTH),
) -> Scene:
    """The scene with `num_gts` ground truths per image of (height, width); `crowd` makes them pedestrian-shaped."""
    rng = np.random.default_rng(seed + 7 * num_gts + num_classes)
    truths = [_ground_truths(rng, num_gts, num_classes, crowd, size) for _ in range(num_images)]
    rows = [_predictions(rng, boxes, classes, num_classes, size) for boxes, classes in truths]
    maps: dict[str, list[Tensor]] = {name: [] for name in rows[0]}
    start = 0
    for h, w in _grid_sizes(size):
        for name, levels in maps.items():
            cells = np.stack([row[name][start : start + h * w].reshape(h, w, -1) for row in rows])
            levels.append(torch.from_numpy(np.ascontiguousarray(cells.transpose(0, 3, 1, 2))))
        start += h * w
    return Scene([torch.from_numpy(b) for b, _ in truths], [torch.from_numpy(c) for _, c in truths], **maps)


def _grid_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    height, width = (-(-side // SIZE_DIVISIBILITY) * SIZE_DIVISIBILITY for side in size)
    return [(-(-height // s), -(-width // s)) for s in STRIDES]


def _locations(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    points, strides = [], []
    for (h, w), s in zip(_grid_sizes(size), STRIDES, strict=True):
        y, x = np.meshgrid((np.arange(h) + 0.5) * s, (np.arange(w) + 0.5) * s, indexing="ij")
        points.append(np.stack([x.ravel(), y.ravel()], 1))
        strides.append(np.full(h * w, s))
    return np.concatenate(points).astype(np.float32), np.concatenate(strides).astype(np.float32)


def _ground_truths(
    rng, num: int, num_classes: int, crowd: bool, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of log-normal sizes and their classes; 55 % of the boxes lie beside, over or inside an earlier box."""
    height, width = size
    median = min(110 if num <= 20 else 65 if num <= 100 else 45, height / 4)
    boxes, classes = [], []
    while len(boxes) < num:
        if boxes and rng.random() < 0.55:
            j = rng.integers(len(boxes))
            b, f = boxes[j], rng.uniform(0.5, 1.4)
            bw, bh = (b[2] - b[0]) * f, (b[3] - b[1]) * f * rng.uniform(0.8, 1.2)
            cx = (b[0] + b[2]) / 2 + rng.normal() * 0.45 * (b[2] - b[0])
            cy = (b[1] + b[3]) / 2 + rng.normal() * 0.3 * (b[3] - b[1])
            c = classes[j] if rng.random() < 0.7 else int(rng.integers(num_classes))
        else:
            s = float(np.clip(median * math.exp(rng.normal() * 0.8), 8, 0.95 * height))
            a = math.exp(rng.normal() * 0.35)
            bw, bh = (s * 0.65, s * 1.5) if crowd else (s * a, s / a)
            cx, cy, c = rng.uniform(0, width), rng.uniform(0, height), int(rng.integers(num_classes))
        b = [max(cx - bw / 2, 0), max(cy - bh / 2, 0), min(cx + bw / 2, width), min(cy + bh / 2, height)]
        if b[2] - b[0] >= 5 and b[3] - b[1] >= 5:
            boxes.append(b)
            classes.append(c)
    return np.array(boxes, np.float32), np.array(classes, np.int64)


def _predictions(
    rng, boxes: np.ndarray, classes: np.ndarray, num_classes: int, size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Noise plus signal around the ground truths, over all R locations; logits within [-9, 7]."""
    points, strides = _locations(size)
    r = len(points)
    cls = -3.8 + 0.8 * rng.standard_normal((r, num_classes), dtype=np.float32)
    ctr = rng.standard_normal(r, dtype=np.float32) * 0.8 - 0.3
    fil = rng.standard_normal(r, dtype=np.float32) + 0.2
    ltrb = np.maximum(strides[:, None] * (2 + 1.5 * rng.standard_normal((r, 4), dtype=np.float32)), 0)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for g in np.argsort(-areas):
        x0, y0, x1, y1 = boxes[g]
        d = np.stack([points[:, 0] - x0, points[:, 1] - y0, x1 - points[:, 0], y1 - points[:, 1]], 1)
        near = np.nonzero(d.min(1) > -0.25 * strides)[0]
        if len(near) == 0:
            continue
        s, m = strides[near], len(near)
        noisy = d[near] * np.exp(0.2 * rng.standard_normal((m, 4), dtype=np.float32))
        ltrb[near] = np.maximum(noisy + 0.1 * s[:, None] * rng.standard_normal((m, 4), dtype=np.float32), 0)
        r2 = ((points[near, 0] - (x0 + x1) / 2) / max(x1 - x0, 8)) ** 2
        r2 = r2 + ((points[near, 1] - (y0 + y1) / 2) / max(y1 - y0, 8)) ** 2
        level = np.exp(-0.4 * np.abs(np.log2(math.sqrt(areas[g]) / (5 * s))) ** 2)
        bump = 5.5 * level * np.exp(-r2 / 0.12) * (1 + 0.12 * rng.standard_normal(m, dtype=np.float32))
        cls[near, classes[g]] = np.maximum(cls[near, classes[g]], cls[near, classes[g]] + bump)
        ctr[near] += 0.5 * bump
        fil[near] += 0.5 * bump

    def clip(v: np.ndarray) -> np.ndarray:
        return np.clip(v, -9, 7).astype(np.float32)

    return {"logits": clip(cls), "ltrb": ltrb.astype(np.float32), "quality": clip(ctr), "filter": clip(fil)}
