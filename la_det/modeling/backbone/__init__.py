"""Backbone parts that Detectron2 does not have in the form needed here."""

from la_det.modeling.backbone.resnet import DeformBottleneckBlock, bottleneck_stages
from la_det.modeling.backbone.timm_backbone import TimmBackbone
from la_det.modeling.backbone.top_block import LastLevelP6P7WithoutReLU

__all__ = ["DeformBottleneckBlock", "LastLevelP6P7WithoutReLU", "TimmBackbone", "bottleneck_stages"]
