"""Backbone parts that Detectron2 does not have in the form needed here."""

from la_det.modeling.backbone.resnet import DeformBottleneckBlock, bottleneck_stages

__all__ = ["DeformBottleneckBlock", "bottleneck_stages"]
