"""Masks of detections in the pixels of their images."""

from __future__ import annotations

import numpy as np

THRESHOLD = 0.5  # a pixel belongs to an instance if its probability is larger


def pasted(
    probabilities: np.ndarray, stride: int, image_size: tuple[int, int], output_size: tuple[int, int]
) -> np.ndarray:
    """Masks [n, *output_size] bool of mask probabilities [n, h, w].

    Two bilinear resizings come one after the other, as in `la_det.modeling.mask_inference`: to the pixels of the
    network's input, and to those of the output. Each is linear in the rows and in the columns.

    Args:
        stride: stride of the probabilities, in pixels of the network's input.
        image_size: (height, width) of the network's input before padding.
        output_size: (height, width) of the wanted masks.
    """
    rows, columns = (
        _resizing(cells, stride, *sides)
        for cells, *sides in zip(probabilities.shape[1:], image_size, output_size, strict=True)
    )
    masks = np.empty((len(probabilities), *output_size), bool)
    for mask, p in zip(masks, probabilities, strict=True):
        np.greater(rows @ p @ columns.T, THRESHOLD, out=mask)
    return masks


def _resizing(cells: int, stride: int, side: int, output_side: int) -> np.ndarray:
    """Matrix [output_side, cells] of both resizings along one side."""
    aligned = _interpolation(cells, (np.arange(side) - stride // 2) / stride)
    return _interpolation(side, (np.arange(output_side) + 0.5) * side / output_side - 0.5) @ aligned


def _interpolation(count: int, positions: np.ndarray) -> np.ndarray:
    """Matrix [positions, count] that interpolates linearly between `count` values, and repeats the first and last."""
    positions = positions.clip(0, count - 1)
    lower = np.floor(positions).astype(int)
    matrix = np.zeros((len(positions), count), np.float32)
    each = np.arange(len(positions))
    matrix[each, lower] = 1 - (positions - lower)
    matrix[each, np.minimum(lower + 1, count - 1)] += positions - lower
    return matrix
