"""Layers that torch, torchvision and Detectron2 do not have in the form needed here."""

from la_det.modeling.layers.batch_norm import EvalBatchNorm2d
from la_det.modeling.layers.deform_conv import ModulatedDeformConv2d
from la_det.modeling.layers.max_filtering import MaxFiltering, filtered_logits

__all__ = ["EvalBatchNorm2d", "MaxFiltering", "ModulatedDeformConv2d", "filtered_logits"]
