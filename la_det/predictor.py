"""Detections of a trained model in single images, without a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data import Metadata
from detectron2.data import transforms as T
from detectron2.structures import Instances
from omegaconf import DictConfig

from la_det.build import build_model, load_model
from la_det.data.images import read_image
from la_det.deploy.images import reordered
from la_det.engine.own_dataset import model_classes
from la_det.engine.setup import load_config
from la_det.modeling.images import detect_apart, divisor_of


class Predictor:
    """A config's model with trained weights, applied to images in the same way as in the config's evaluation.

    Every LazyConfig is possible whose model takes and returns what Detectron2's detectors do.

    Args:
        config: a name of `la_det.model_zoo.list()`, a LazyConfig file, or a config.
        weights: file or address of a checkpoint; None leaves the weights random, for measuring speed.

    Attributes:
        metadata: names of the classes, from the weights, else from the config, else from its test data set.
        model: the model in evaluation mode, on the device `config.train.device`.

    Raises:
        UserError: there is no such config, or the checkpoint cannot be read or belongs to another model.
    """

    def __init__(self, config: str | Path | DictConfig, weights: str | Path | None) -> None:
        cfg = load_config(config)
        test = cfg.dataloader.test
        self.metadata: Metadata = model_classes(cfg, weights).metadata(str(test.dataset.names))
        self.model = build_model(cfg).eval() if weights is None else load_model(cfg, str(weights))[0]
        self._augmentations = T.AugmentationList(instantiate(test.mapper.augmentations))
        self._image_format = test.mapper.image_format

    @torch.no_grad()
    def __call__(self, images: Sequence[np.ndarray | str | Path]) -> list[Instances]:
        """Detections of each image, on the CPU, with boxes in pixels of the given image.

        Images that are padded to the same size are one batch. The detections of an image do not depend on the others.

        Args:
            images: arrays [H, W, 3] uint8 in BGR, OpenCV's order, or paths of files.

        Raises:
            UserError: a file cannot be read.
        """
        inputs = [self._input(self._pixels(image)) for image in images]
        return [output["instances"].to("cpu") for output in detect_apart(self.model, inputs, divisor_of(self.model))]

    def _pixels(self, image: np.ndarray | str | Path) -> np.ndarray:
        """[H, W, C] uint8, the channels in the order of the network's input."""
        if not isinstance(image, np.ndarray):
            return read_image(image, self._image_format)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"an image is [H, W, 3] of uint8, not {list(image.shape)} of {image.dtype}")
        return reordered(image, "BGR", self._image_format)

    def _input(self, pixels: np.ndarray) -> dict:
        augmented = T.AugInput(pixels)
        self._augmentations(augmented)
        tensor = torch.from_numpy(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))
        return {"image": tensor, "height": pixels.shape[0], "width": pixels.shape[1]}
