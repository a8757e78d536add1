"""Exported files in the place of models: for `la-det detect`, and for Detectron2's evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from torch import nn

from la_det.data.classes import Classes
from la_det.deploy import Detections, Detector
from la_det.predictor import Predictor


class ExportedPredictor(Predictor):
    """A `la_det.Predictor` for an exported file, which needs neither config nor weights.

    Args:
        path, device, allow_code: see `la_det.deploy.Detector`.
    """

    def __init__(self, path: str | Path, device: str = "cpu", *, allow_code: bool = False):
        self.detector = Detector(path, device, threads=torch.get_num_threads(), allow_code=allow_code)
        details = self.detector.details
        self.metadata = Classes(details.classes, details.category_ids).metadata(str(path))
        self._image_format = details.input_format

    def __call__(self, images: Sequence[np.ndarray | str | Path]) -> list[Instances]:
        pixels = [self._pixels(image) for image in images]
        found = self.detector(pixels, self._image_format)
        return [to_instances(x, image.shape[:2]) for x, image in zip(found, pixels, strict=True)]


class ExportedDetector(nn.Module):
    """An exported file as a detector that takes and returns what Detectron2's detectors do in evaluation.

    Args:
        path, device, allow_code: see `la_det.deploy.Detector`.
    """

    def __init__(self, path: str | Path, device: str = "cpu", *, allow_code: bool = False):
        super().__init__()
        self.detector = Detector(path, device, threads=torch.get_num_threads(), allow_code=allow_code)

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """`[{"instances": Instances}]` for dicts with "image" [C, H, W], and optionally "height" and "width".

        The detections of an image do not depend on the others.
        """
        images = [x["image"].numpy(force=True).transpose(1, 2, 0) for x in batched_inputs]
        sizes = [
            (x.get("height", image.shape[0]), x.get("width", image.shape[1]))
            for x, image in zip(batched_inputs, images, strict=True)
        ]
        found = self.detector.detect(images, sizes)
        return [{"instances": to_instances(x, size)} for x, size in zip(found, sizes, strict=True)]


def to_instances(found: Detections, size: tuple[int, int]) -> Instances:
    """Detections in an image of this (height, width) in Detectron2's form, with `priors`, and perhaps `pred_masks`."""
    instances = Instances(size)
    instances.pred_boxes = Boxes(torch.from_numpy(found.boxes))
    instances.scores = torch.from_numpy(found.scores)
    instances.pred_classes = torch.from_numpy(found.classes)
    instances.priors = torch.from_numpy(found.priors)
    if found.masks is not None:
        instances.pred_masks = torch.from_numpy(found.masks)
    return instances
