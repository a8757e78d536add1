"""Evaluators for Detectron2."""

from la_det.evaluation.coco import COCOEvaluator as COCOEvaluator
from la_det.evaluation.crowdhuman import CrowdHumanEvaluator as CrowdHumanEvaluator
