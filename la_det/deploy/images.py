"""Images around a network: order of channels, size, padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image


def padded_size(sizes: Sequence[tuple[int, int]], divisor: int) -> tuple[int, int]:
    """The least (height, width) that holds all `sizes` and that `divisor` divides."""
    height, width = (-(-max(side) // divisor) * divisor for side in zip(*sizes, strict=True))
    return height, width


def of_one_size(sizes: Sequence[tuple[int, int]], divisor: int) -> Iterator[list[int]]:
    """Indices of images in groups whose images would alone be padded to the same size.

    A network sees the padding: norms average over it, and convolutions reach into it. In such a group, no image is
    padded for the sake of another one, so its detections do not depend on the others.

    Args:
        sizes: (height, width) of each image.
        divisor: see `padded_size`.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for i, size in enumerate(sizes):
        groups.setdefault(padded_size([size], divisor), []).append(i)
    yield from groups.values()


def reordered(image: np.ndarray, order: str, wanted: str) -> np.ndarray:
    """An image [H, W, 3] uint8 of one order of channels in another one, [H, W, C] uint8.

    Args:
        order: "BGR" or "RGB".
        wanted: "BGR", "RGB", or "L" for one channel.
    """
    if order == wanted:
        return image
    flipped = image[:, :, ::-1]
    if wanted != "L":
        return flipped
    rgb = image if order == "RGB" else flipped
    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).convert("L"))[:, :, None]


def resized_size(
    size: tuple[int, int], short_edge: int | None, max_size: int | None, fixed: tuple[int, int] | None
) -> tuple[int, int]:
    """The (height, width) to which an image of this size is resized.

    Args:
        short_edge: wanted pixels of the short side; None: the image keeps its size.
        max_size: largest number of pixels of the long side; None: any.
        fixed: (height, width) that the image must not exceed; None: any.
    """
    height, width = map(float, size)
    if short_edge is not None:
        # Operation by operation as Detectron2's ResizeShortestEdge, so that the roundings are the same.
        scale = short_edge / min(size)
        height, width = (short_edge, scale * width) if height < width else (scale * height, short_edge)
        if max_size is not None and max(height, width) > max_size:
            scale = max_size / max(height, width)
            height, width = height * scale, width * scale
    new = max(int(height + 0.5), 1), max(int(width + 0.5), 1)
    scale = min(1.0, fixed[0] / new[0], fixed[1] / new[1]) if fixed else 1.0
    return new if scale == 1 else (max(round(new[0] * scale), 1), max(round(new[1] * scale), 1))


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image [H, W, C] uint8 in another (height, width), as training and evaluation resize it."""
    if image.shape[:2] == size:
        return image
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    return np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR)).reshape(*size, image.shape[2])
