"""What training needs beyond Detectron2's engine."""

from la_det.engine.trainer import Trainer

__all__ = ["Trainer"]
