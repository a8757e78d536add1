"""Exported files at work: from images to detections as NumPy arrays, without Detectron2.

ONNX and OpenVINO files run without torch, too.
"""

from la_det.deploy.detector import Detections, Detector

__all__ = ["Detections", "Detector"]
