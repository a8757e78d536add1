"""Dense heads: two towers shared by all levels, and one predictor per branch."""

from la_det.modeling.heads.dense_head import DenseHead
from la_det.modeling.heads.predictor import Predictor
from la_det.modeling.heads.tower import ConvTower

__all__ = ["ConvTower", "DenseHead", "Predictor"]
