"""From a config and weights to an exported file."""

from __future__ import annotations

import copy
import logging
import tempfile
from pathlib import Path

import numpy as np
from detectron2.utils.registry import locate
from omegaconf import DictConfig

from la_det.build import load_model
from la_det.data.images import read_image
from la_det.data.records import load_records
from la_det.deploy.metadata import NMS, ExportMetadata
from la_det.engine.own_dataset import model_classes
from la_det.errors import UserError
from la_det.export.formats import OPSETS, WRITERS, Options
from la_det.export.graph import ExportGraph
from la_det.export.int8 import import_nncf, write_int8
from la_det.export.metadata import metadata_of, nms_of
from la_det.export.openvino_files import import_openvino
from la_det.modeling import AssignmentDetector

logger = logging.getLogger(__name__)


def export(cfg: DictConfig, name: str, weights: str | Path, path: Path, options: Options) -> ExportMetadata:
    """Write `cfg.model` with trained weights to `path`. Return the metadata of the file.

    Raises:
        UserError: the model is not an `AssignmentDetector`, or the checkpoint or the options do not fit.
    """
    target = cfg.model._target_
    kind = locate(target) if isinstance(target, str) else target
    if kind is not AssignmentDetector:
        raise UserError(f"{name}: its model is a {kind.__name__}; only AssignmentDetector can be exported")
    check_options(options, path)
    classes = model_classes(cfg, weights)
    cfg = copy.deepcopy(cfg)
    cfg.train.update(device="cpu", channels_last=False)
    model = load_model(cfg, str(weights))[0]
    metadata = metadata_of(cfg, name, model.backbone.size_divisibility, _nms(model, name, options), classes)
    check_size(model, name, options.image_size)
    images = calibration_images(cfg, options) if options.int8 else []
    graph = ExportGraph(model, raw=options.raw, half=options.half)
    path.parent.mkdir(parents=True, exist_ok=True)
    logger.info("recording the graph; with free sizes this takes half a minute or longer")
    write = WRITERS[options.format]
    if not options.int8:
        write(graph, metadata, path, options)
        return metadata
    with tempfile.TemporaryDirectory() as folder:
        float_file = Path(folder, path.name)
        write(graph, metadata, float_file, options)
        logger.info("setting the scales of int8 by %d images", len(images))
        write_int8(float_file, images, path)
    return metadata


def check_options(options: Options, path: Path) -> None:
    """Raise `UserError` if the options exclude each other or do not fit the file's name, whatever the model is."""
    if options.opset not in OPSETS:
        raise UserError(f"--opset {options.opset}: files are written in opset {OPSETS[0]} to {OPSETS[-1]}")
    if options.int8 and options.format != "openvino":
        raise UserError(f"--int8: only OpenVINO files (.xml) have int8, not the format {options.format}")
    if options.int8 and (options.raw or options.half):
        raise UserError("--int8 does not go with --raw-candidates or --half")
    if options.int8 and options.calibration_images < 1:
        raise UserError(f"--calibration-images {options.calibration_images}: at least one image")
    if options.format == "openvino" and path.suffix != ".xml":
        raise UserError(f"{path}: OpenVINO's files end with .xml and .bin; give the name of the .xml")
    if options.format == "openvino":
        import_openvino()
    if options.int8:
        import_nncf()


def check_size(model: AssignmentDetector, name: str, size: tuple[int, int] | None) -> None:
    """Raise `UserError` if the model's graph cannot have this fixed (height, width), or None, free sizes."""
    step = model.backbone.size_divisibility
    if size and any(side <= 0 or side % step for side in size):
        raise UserError(f"--image-size {' '.join(map(str, size))}: sides must be multiples of {step}")
    if size is None and any(type(module).__name__.startswith("SwinTransformer") for module in model.backbone.modules()):
        raise UserError(f"{name}: Swin's windows are laid out for one size; give --image-size H W")


def calibration_images(cfg: DictConfig, options: Options) -> list[np.ndarray]:
    """Images of the calibration set at equal distances, in the order of the network's channels."""
    records = load_records(options.calibration or cfg.dataloader.train.dataset.names, filter_empty=False)
    chosen = np.unique(np.linspace(0, len(records) - 1, options.calibration_images).astype(int))
    return [read_image(records[int(i)]["file_name"], cfg.dataloader.test.mapper.image_format) for i in chosen]


def _nms(model: AssignmentDetector, name: str, options: Options) -> NMS:
    if model.inference.nms_threshold is None:
        if options.raw:
            raise UserError(f"{name}: a one-to-one scheme's detections need no NMS; leave --raw-candidates out")
    return "outside" if options.raw else nms_of(model.inference)
