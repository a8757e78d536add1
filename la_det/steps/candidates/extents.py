"""The part of the grids that belongs to an image, where a batch has images of several sizes."""

import torch
from torch import Tensor

from la_det.structures import Priors, Targets, on_device


def grid_extents(priors: Priors, targets: Targets, pad_to: int | None) -> Tensor:
    """[N, L, 2] columns and rows whose cells begin inside the image padded to a multiple of `pad_to`; None for all."""
    return on_device(_extents(priors, targets, pad_to), targets.boxes.device)


def smaller_extents(priors: Priors, targets: Targets, pad_to: int | None) -> Tensor | None:
    """`grid_extents`, or None where every image has the whole grid."""
    whole = _extents(priors, targets, pad_to) == _extents(priors, targets, None)
    return None if whole else grid_extents(priors, targets, pad_to)


def within_extents(priors: Priors, extents: Tensor) -> Tensor:
    """[N, R] whether a prior's cell is one of the columns and rows that count."""
    masks = []
    for level, (h, w) in enumerate(priors.grid_sizes):
        columns, rows = extents[:, level].unsqueeze(-1).unbind(1)  # [N, 1] each
        in_columns = torch.arange(w, device=extents.device) < columns
        in_rows = torch.arange(h, device=extents.device) < rows
        cells = in_rows.unsqueeze(2) & in_columns.unsqueeze(1)  # [N, h, w]
        masks.append(cells.flatten(1).repeat_interleave(priors.per_cell, 1))
    return torch.cat(masks, 1)


def beyond_extents(priors: Priors, extents: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """(image [D], prior [D]) of the priors that do not count; None where all do."""
    if extents is None:
        return None
    return (~within_extents(priors, extents)).nonzero().unbind(1)  # host synchronisation


def _extents(priors: Priors, targets: Targets, pad_to: int | None) -> list[list[tuple[int, int]]]:
    whole = [(w, h) for h, w in priors.grid_sizes]
    if pad_to is None:
        return [whole] * targets.num_images
    images = []
    for size in targets.image_sizes:
        height, width = (-(-side // pad_to) * pad_to for side in size)
        of_levels = zip(whole, priors.level_strides, strict=True)
        images.append([(min(w, -(-width // s)), min(h, -(-height // s))) for (w, h), s in of_levels])
    return images
