"""The instance masks of a batch's ground truths."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

_CHUNK = 16  # masks that are summed at a time: the sum of a bool tensor makes a copy of a wider type


@dataclass(frozen=True)
class Masks:
    """One mask per ground truth, in the order of `Targets`.

    Attributes:
        of_images: per image [g, h, w] bool, in pixels of the network input before padding.
    """

    of_images: tuple[Tensor, ...]

    def __len__(self) -> int:
        return sum(len(masks) for masks in self.of_images)

    @property
    def areas(self) -> Tensor:
        """[G] numbers of pixels."""
        return self._moments[:, 0]

    @property
    def centroids(self) -> Tensor:
        """[G, 2] mean (x, y) of the pixel indices, 0.5 less than the mean of the pixel centres; NaN for empty masks."""
        return self._moments[:, 1:] / self._moments[:, :1]

    def sample(self, start: int, step: int, size: tuple[int, int]) -> Tensor:
        """Every `step`-th row and column of the masks, from `start` on: [G, *size] bool, False beyond the image."""
        sampled = torch.zeros(len(self), *size, dtype=torch.bool, device=self.of_images[0].device)
        for out, masks in zip(self._split(sampled), self.of_images, strict=True):
            pixels = masks[:, start::step, start::step]
            out[:, : pixels.shape[1], : pixels.shape[2]] = pixels
        return sampled

    def select(self, keep: Tensor) -> "Masks":
        """The masks of the ground truths in `keep` [G] bool."""
        return Masks(tuple(masks[k] for masks, k in zip(self.of_images, self._split(keep), strict=True)))

    def alone(self, gts: Sequence[int]) -> "Masks":
        """The masks of these ground truths, each as the only mask of an image of its own."""
        single = [mask for masks in self.of_images for mask in masks.unbind()]
        return Masks(tuple(single[gt].unsqueeze(0) for gt in gts))

    @cached_property
    def _moments(self) -> Tensor:
        """[G, 3] sums over each mask's pixels of 1, x and y."""
        device = self.of_images[0].device
        moments = torch.empty(len(self), 3, device=device)
        for out, masks in zip(self._split(moments), self.of_images, strict=True):
            x, y = (torch.arange(size, device=device, dtype=torch.float32) for size in (masks.shape[2], masks.shape[1]))
            for part, chunk in zip(out.split(_CHUNK), masks.split(_CHUNK), strict=True):
                columns, rows = chunk.sum(1, dtype=torch.float32), chunk.sum(2, dtype=torch.float32)
                torch.stack([columns.sum(1), columns @ x, rows @ y], 1, out=part)
        return moments

    def _split(self, per_gt: Tensor) -> tuple[Tensor, ...]:
        return per_gt.split([len(masks) for masks in self.of_images])
