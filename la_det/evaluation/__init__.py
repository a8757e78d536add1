"""Evaluators for Detectron2."""

from la_det.evaluation.coco import COCOEvaluator as COCOEvaluator
