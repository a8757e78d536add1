"""Backbone parts that Detectron2 does not have in the form needed here."""

from la_det.modeling.backbone.resnet import DeformBottleneckBlock, bottleneck_stages
from la_det.modeling.backbone.timm_backbone import TimmBackbone

__all__ = ["DeformBottleneckBlock", "TimmBackbone", "bottleneck_stages"]
