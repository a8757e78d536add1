"""An exported ONNX file as a detector of Detectron2's kind, run by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from detectron2.data import Metadata
from detectron2.data import transforms as T
from torch import Tensor, nn

from la_det.data.transforms import ResizeShortestEdge
from la_det.errors import UserError
from la_det.export.metadata import ExportMetadata
from la_det.modeling.images import detect_apart, normalised, outputs, padded_size
from la_det.modeling.inference import Candidates
from la_det.predictor import Predictor

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxDetector(nn.Module):
    """An ONNX file as a detector: it takes and returns what Detectron2's detectors do in evaluation.

    Args:
        path: a file of `la-det export`.
        device: "cpu" or "cuda".

    Attributes:
        details: metadata of the file.
        batch_size, image_size: fixed sizes of the input; None: any size.

    Raises:
        UserError: the file is missing, is no file of `la-det export`, or leaves NMS out; or onnxruntime is
            missing or cannot use the device.
    """

    def __init__(self, path: str | Path, device: str = "cpu"):
        super().__init__()
        onnxruntime = import_onnxruntime()
        if not Path(path).is_file():
            raise UserError(f"{path}: no such file; `la-det export` writes ONNX files")
        if PROVIDERS[device] not in onnxruntime.get_available_providers():
            raise UserError(f"{device}: this onnxruntime cannot use it; install onnxruntime-gpu, or take the CPU")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Threads that wait busily after a run would slow torch down.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=[PROVIDERS[device]])
        except Exception as error:  # ONNX Runtime's exceptions have no common class
            reason = " ".join(str(error).split())
            raise UserError(f"{path}: no ONNX file; `la-det export` writes one ({reason:.200})") from error
        self.details = ExportMetadata.from_strings(self.session.get_modelmeta().custom_metadata_map, path)
        if self.details.nms == "outside":
            raise UserError(f"{path}: its outputs are candidates before NMS; export it without --raw-candidates")
        inputs = {x.name: x.shape for x in self.session.get_inputs()}
        self.input_names = list(inputs)
        batch, _, height, width = (size if isinstance(size, int) else None for size in inputs["images"])
        self.batch_size, self.image_size = batch, height and (height, width)

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """`[{"instances": Instances}]` for dicts with "image" [C, H, W], and optionally "height" and "width".

        The detections of an image do not depend on the others.
        """
        if self.image_size:
            return self._in_batches(batched_inputs)
        return detect_apart(self._in_batches, batched_inputs, self.details.size_divisibility)

    def _in_batches(self, inputs: list[dict]) -> list[dict]:
        step = self.batch_size or max(len(inputs), 1)
        chunks = [inputs[i : i + step] for i in range(0, len(inputs), step)]
        return [result for chunk in chunks for result in self._detect(chunk)]

    def _detect(self, inputs: list[dict]) -> list[dict]:
        sizes = [tuple(x["image"].shape[-2:]) for x in inputs]
        images = self.preprocess([x["image"] for x in inputs])
        detections, masks = self.detections(self.run(images, sizes), len(inputs))
        return outputs(inputs, sizes, detections, masks, images.shape[-1])

    def preprocess(self, images: list[Tensor]) -> Tensor:
        """Images, normalised and padded to the graph's batch and image size: [N, C, H, W] float32."""
        mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (self.details.pixel_mean, self.details.pixel_std))
        sizes = [image.shape[-2:] for image in images]
        height, width = self.image_size or padded_size(sizes, self.details.size_divisibility)
        for h, w in sizes:
            if h > height or w > width:
                raise UserError(f"an image of {h} x {w} pixels is too large for this file's {height} x {width}")
        fill = [mean.new_empty(len(mean), 0, 0)] * ((self.batch_size or len(images)) - len(images))
        return normalised([*images, *fill], (height, width), mean, std)

    def run(self, images: Tensor, sizes: list[tuple[int, int]]) -> dict[str, np.ndarray]:
        """Name -> output of the graph. Images that only fill the batch have the size of the input."""
        filled = [*sizes, *[tuple(images.shape[-2:])] * (len(images) - len(sizes))]
        feeds = {"images": images.numpy(), "image_sizes": np.array(filled, dtype=np.int64)}
        names = [x.name for x in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, {name: feeds[name] for name in self.input_names}), strict=True))

    def detections(self, arrays: dict[str, np.ndarray], count: int) -> tuple[Candidates, Tensor | None]:
        """Detections of the first `count` images, and their masks."""
        tensors = {name: torch.from_numpy(x)[:count] for name, x in arrays.items()}
        valid = torch.arange(tensors["scores"].shape[1]) < tensors.pop("counts").unsqueeze(-1)
        masks = tensors.pop("masks", None)
        return Candidates(**tensors, valid=valid), masks


def import_onnxruntime() -> ModuleType:
    """The optional package onnxruntime; if it is missing, a `UserError` says how to install it."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise UserError("onnxruntime is missing: pip install 'la_det[export]', or onnxruntime-gpu for GPUs") from error
    return onnxruntime


class OnnxPredictor(Predictor):
    """A `la_det.Predictor` for an exported ONNX file, which needs neither config nor weights.

    Args:
        path, device: see `OnnxDetector`.
    """

    def __init__(self, path: str | Path, device: str = "cpu"):
        self.model = OnnxDetector(path, device).eval()
        details = self.model.details
        self.metadata = Metadata(
            name=str(path),
            thing_classes=list(details.classes),
            thing_dataset_id_to_contiguous_id={number: i for i, number in enumerate(details.category_ids)},
        )
        self._augmentations = T.AugmentationList(_resizing(details, self.model.image_size))
        self._image_format = details.input_format

    def _detect(self, inputs: list[dict]) -> list[dict]:
        return self.model(inputs)  # which keeps images of different sizes apart itself


def _resizing(details: ExportMetadata, image_size: tuple[int, int] | None) -> list[T.Augmentation]:
    resize = [] if details.short_edge is None else [ResizeShortestEdge(details.short_edge, details.max_size)]
    return resize if image_size is None else [*resize, _ShrinkToFit(image_size)]


class _ShrinkToFit(T.Augmentation):
    """Shrinks images that are too large for a fixed input, and keeps their aspect ratio."""

    def __init__(self, size: tuple[int, int]):
        super().__init__()
        self.size = size

    def get_transform(self, image: np.ndarray) -> T.Transform:
        h, w = image.shape[:2]
        scale = min(1.0, self.size[0] / h, self.size[1] / w)
        return T.ResizeTransform(h, w, max(round(h * scale), 1), max(round(w * scale), 1))
