"""Layers that torch, torchvision and Detectron2 do not have in the form needed here."""

from la_det.modeling.layers.deform_conv import ModulatedDeformConv2d

__all__ = ["ModulatedDeformConv2d"]
