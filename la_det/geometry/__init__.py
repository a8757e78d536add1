"""Overlaps, distances and centerness of boxes. Matchers and losses use only these."""

from la_det.geometry.centerness import centerness
from la_det.geometry.iou import FLOAT32_EPS, aligned_ciou, aligned_giou, aligned_iou
from la_det.geometry.ltrb import ltrb_distances
from la_det.geometry.relative_boxes import image_scales, relative_boxes

__all__ = [
    "FLOAT32_EPS",
    "aligned_ciou",
    "aligned_giou",
    "aligned_iou",
    "centerness",
    "image_scales",
    "ltrb_distances",
    "relative_boxes",
]
