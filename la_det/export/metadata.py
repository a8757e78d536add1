"""The metadata of a config's model."""

from __future__ import annotations

from detectron2.config import instantiate
from detectron2.data import transforms as T
from omegaconf import DictConfig

import la_det
from la_det.config import class_node
from la_det.data.classes import Classes
from la_det.deploy.metadata import NMS, ExportMetadata
from la_det.engine.own_dataset import model_classes
from la_det.errors import UserError
from la_det.modeling.inference import DenseInference
from la_det.modeling.query_inference import QueryInference


def nms_of(rule: DenseInference) -> NMS:
    """The NMS in the graph of a model with this inference rule."""
    if isinstance(rule, QueryInference):
        return "queries"
    return "none" if rule.nms_threshold is None else "graph"


def metadata_of(
    cfg: DictConfig, name: str, size_divisibility: int, nms: NMS, classes: Classes | None = None
) -> ExportMetadata:
    """The metadata of a config's model.

    Args:
        name: name of the config.
        size_divisibility: size divisibility of the built model's backbone.
        classes: classes of the weights; None: those of the config.
    """
    model, test = class_node(cfg.model), cfg.dataloader.test
    classes = model_classes(cfg, None) if classes is None else classes
    resize = _resize(instantiate(test.mapper.augmentations), name)
    rule = instantiate(model.inference)
    return ExportMetadata(
        la_det=la_det.__version__,
        config=name,
        classes=tuple(classes.names),
        category_ids=tuple(classes.ids),
        pixel_mean=tuple(model.pixel_mean),
        pixel_std=tuple(model.pixel_std),
        input_format=test.mapper.image_format,
        size_divisibility=size_divisibility,
        short_edge=resize and max(resize.short_edge_length),
        max_size=resize and resize.max_size,
        score_threshold=rule.score_threshold,
        nms=nms,
        nms_threshold=rule.queries.nms_threshold if nms == "queries" else rule.nms_threshold,
        max_detections=rule.max_detections,
    )


def _resize(augmentations: list[T.Augmentation], name: str) -> T.ResizeShortestEdge | None:
    if not augmentations:
        return None
    if len(augmentations) > 1 or not isinstance(augmentations[0], T.ResizeShortestEdge):
        raise UserError(f"{name}: dataloader.test.mapper.augmentations may hold one ResizeShortestEdge for an export")
    return augmentations[0]
