"""Augmentations where Detectron2's fail."""

from __future__ import annotations

import numpy as np
from detectron2.data import transforms as T


class ResizeShortestEdge(T.ResizeShortestEdge):
    """Detectron2's transform for images of any shape: the short side of a very long image keeps at least one pixel."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        transform = super().get_transform(image)
        if isinstance(transform, T.ResizeTransform):
            transform.new_h, transform.new_w = max(transform.new_h, 1), max(transform.new_w, 1)
        return transform
