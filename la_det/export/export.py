"""From a config and weights to an exported file."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from pathlib import Path

from detectron2.utils.registry import locate
from omegaconf import DictConfig

from la_det.build import load_model
from la_det.engine.own_dataset import model_classes
from la_det.errors import UserError
from la_det.export.formats import WRITERS
from la_det.export.graph import ExportGraph
from la_det.export.metadata import NMS, ExportMetadata, metadata_of, nms_of
from la_det.modeling import AssignmentDetector

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How a graph is recorded.

    Attributes:
        format: a key of `WRITERS`.
        batch_size: fixed number of images; None: any number.
        image_size: fixed (height, width) of the input; None: any multiple of the size divisibility.
        half: whether weights and network have half precision.
        raw: whether the outputs of a one-to-many scheme are its candidates before NMS.
    """

    format: str = "onnx"
    batch_size: int | None = None
    image_size: tuple[int, int] | None = None
    half: bool = False
    raw: bool = False


def export(cfg: DictConfig, name: str, weights: str | Path, path: Path, options: Options) -> ExportMetadata:
    """Write `cfg.model` with trained weights to `path`. Return the metadata of the file.

    Raises:
        UserError: the model is not an `AssignmentDetector`, or the checkpoint or the options do not fit.
    """
    target = cfg.model._target_
    kind = locate(target) if isinstance(target, str) else target
    if kind is not AssignmentDetector:
        raise UserError(f"{name}: its model is a {kind.__name__}; only AssignmentDetector can be exported")
    classes = model_classes(cfg, weights)
    cfg = copy.deepcopy(cfg)
    cfg.train.update(device="cpu", channels_last=False)
    model = load_model(cfg, str(weights))[0]
    metadata = metadata_of(cfg, name, model.backbone.size_divisibility, _nms(model, name, options), classes)
    step = metadata.size_divisibility
    if options.image_size and any(side <= 0 or side % step for side in options.image_size):
        raise UserError(f"--image-size {' '.join(map(str, options.image_size))}: sides must be multiples of {step}")
    graph = ExportGraph(model, raw=options.raw, half=options.half)
    path.parent.mkdir(parents=True, exist_ok=True)
    logger.info("recording the graph; with free sizes this takes a minute")
    WRITERS[options.format](graph, metadata, path, options.batch_size, options.image_size)
    return metadata


def _nms(model: AssignmentDetector, name: str, options: Options) -> NMS:
    if model.inference.nms_threshold is None:
        if options.raw:
            raise UserError(f"{name}: a one-to-one scheme's detections need no NMS; leave --raw-candidates out")
    return "outside" if options.raw else nms_of(model.inference)
