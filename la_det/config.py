"""Helpers for LazyConfig."""

from typing import Any

from omegaconf import DictConfig


def named(**items: Any) -> dict[str, Any]:
    """The items as a dict: `L(named)(a=L(A)(), b=L(B)())`.

    Detectron2's `instantiate` builds what it finds in lists and in other calls, but not inside plain dicts.
    """
    return items


def class_node(model: DictConfig) -> DictConfig:
    """The node of a model's config that has `num_classes`: in Detectron2's R-CNNs it is not the model's own."""
    return model.roi_heads if "roi_heads" in model else model
