"""A detector from an exported file of any kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from la_det.deploy.images import of_one_size, padded_size, reordered, resized, resized_size
from la_det.deploy.masks import pasted
from la_det.deploy.metadata import ExportMetadata
from la_det.deploy.runtimes import open_file
from la_det.errors import UserError


@dataclass(frozen=True)
class Detections:
    """The n detections of an image, by descending score.

    Attributes:
        boxes: [n, 4] float32, x1, y1, x2, y2 in pixels of the image.
        scores: [n] float32.
        classes: [n] int64, numbers of `Detector.details.classes`.
        priors: [n] int64, index of each detection's location or anchor.
        masks: [n, H, W] bool, for instance segmentation; otherwise None.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    priors: np.ndarray
    masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)


class Detector:
    """A file of `la-det export`, applied to images in the same way as in the evaluation of its recipe.

    Args:
        path: an ONNX (.onnx), OpenVINO (.xml), TorchScript (.pt) or torch.export (.pt2) file.
        device: "cpu" or "cuda".
        threads: CPU threads of ONNX Runtime and OpenVINO; None: their choice.
        allow_code: whether TorchScript and torch.export files may be opened: they can run any code.

    Attributes:
        details: metadata of the file, such as the names of the classes.
        runtime: what runs the file.

    Raises:
        UserError: the file is missing, is no file of `la-det export`, or leaves NMS out; or its runtime is missing or
            cannot use the device.
    """

    def __init__(
        self, path: str | Path, device: str = "cpu", *, threads: int | None = None, allow_code: bool = False
    ) -> None:
        self.runtime = open_file(path, device, threads, allow_code)
        self.details = ExportMetadata.from_strings(self.runtime.strings, path)
        if self.details.nms == "outside":
            raise UserError(f"{path}: its outputs are candidates before NMS; export it without --raw-candidates")

    def __call__(self, images: Sequence[np.ndarray], order: str = "BGR") -> list[Detections]:
        """Detections of each image, which do not depend on the other images.

        Images that are padded to the same size are one batch.

        Args:
            images: arrays [H, W, 3] uint8. For networks of one channel, also [H, W, 1] with `order="L"`.
            order: order of the channels: "BGR", as OpenCV reads images, or "RGB".
        """
        inputs = [self.prepare(image, order) for image in images]
        return self.detect(inputs, [image.shape[:2] for image in images])

    def prepare(self, image: np.ndarray, order: str = "BGR") -> np.ndarray:
        """The network's input for an image, before it is normalised and padded: resized, channels in their order."""
        channels = 1 if order == "L" else 3
        if image.ndim != 3 or image.shape[2] != channels or image.dtype != np.uint8 or 0 in image.shape:
            raise ValueError(f"an image is [H, W, {channels}] of uint8, not {list(image.shape)} of {image.dtype}")
        if order not in ("BGR", "RGB", self.details.input_format):
            raise ValueError(f"order={order!r}: the order of the channels is BGR or RGB")
        size = resized_size(image.shape[:2], self.details.short_edge, self.details.max_size, self.runtime.image_size)
        return resized(reordered(image, order, self.details.input_format), size)

    def detect(self, inputs: Sequence[np.ndarray], output_sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        """Detections of each input of `prepare`, in pixels of an image with this (height, width)."""
        found: dict[int, Detections] = {}
        for group in self._groups([x.shape[:2] for x in inputs]):
            sizes = [inputs[i].shape[:2] for i in group]
            batch = self.batch([inputs[i] for i in group])
            arrays = self.run(batch, sizes)
            found |= zip(group, self.outputs(arrays, batch, sizes, [output_sizes[i] for i in group]), strict=True)
        return [found[i] for i in range(len(inputs))]

    def _groups(self, sizes: Sequence[tuple[int, int]]) -> list[list[int]]:
        """Indices of the images of each batch."""
        of_size = of_one_size(sizes, self.details.size_divisibility)
        groups = [list(range(len(sizes)))] if self.runtime.image_size else list(of_size)
        step = self.runtime.batch_size or max(len(sizes), 1)
        return [group[i : i + step] for group in groups for i in range(0, len(group), step)]

    def batch(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """The graph's input [N, C, H, W] float32: images [h, w, C], normalised and padded with zeros.

        A batch of fixed size is filled up with empty images.
        """
        mean, std = (np.array(x, np.float32)[:, None, None] for x in (self.details.pixel_mean, self.details.pixel_std))
        sizes = [x.shape[:2] for x in inputs]
        height, width = self.runtime.image_size or padded_size(sizes, self.details.size_divisibility)
        for h, w in sizes:
            if h > height or w > width:
                raise UserError(f"an image of {h} x {w} pixels is too large for this file's {height} x {width}")
        batch = np.zeros((self.runtime.batch_size or len(inputs), len(mean), height, width), np.float32)
        for slot, image, (h, w) in zip(batch, inputs, sizes, strict=False):
            np.subtract(image.transpose(2, 0, 1), mean, out=slot[:, :h, :w])
            slot[:, :h, :w] /= std
        return batch

    def run(self, batch: np.ndarray, sizes: Sequence[tuple[int, int]]) -> dict[str, np.ndarray]:
        """The graph's outputs by their names, for a `batch` of images with these (height, width) before padding."""
        return self.runtime(self.feeds(batch, sizes))

    def feeds(self, batch: np.ndarray, sizes: Sequence[tuple[int, int]]) -> dict[str, np.ndarray]:
        """The graph's inputs by their names, for the arguments of `run`."""
        filled = [*sizes, *[batch.shape[-2:]] * (len(batch) - len(sizes))]
        feeds = {"images": batch, "image_sizes": np.array(filled, dtype=np.int64)}
        return {name: feeds[name] for name in self.runtime.input_names}

    def outputs(
        self,
        arrays: Mapping[str, np.ndarray],
        batch: np.ndarray,
        sizes: Sequence[tuple[int, int]],
        output_sizes: Sequence[tuple[int, int]],
    ) -> list[Detections]:
        """Detections of each image from the graph's outputs: scaled and clipped to the output, without empty boxes."""
        results = []
        for i, (size, wanted) in enumerate(zip(sizes, output_sizes, strict=True)):
            image = {name: x[i, : arrays["counts"][i]] for name, x in arrays.items() if name != "counts"}
            scale = np.array([wanted[1] / size[1], wanted[0] / size[0]] * 2, np.float32)
            boxes = np.clip(image.pop("boxes") * scale, 0, np.array([wanted[1], wanted[0]] * 2, np.float32))
            kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
            masks = image.pop("masks", None)
            if masks is not None:
                masks = pasted(masks[kept], batch.shape[-1] // masks.shape[-1], size, wanted)
            results.append(Detections(boxes[kept], **{name: x[kept] for name, x in image.items()}, masks=masks))
        return results
