"""Dense heads: two towers shared by all levels, and one predictor per branch."""

from la_det.modeling.heads.boundary_refinement import BoundaryRefinement, RefinedPredictor
from la_det.modeling.heads.branch_predictor import BranchPredictor
from la_det.modeling.heads.controlled_predictor import ControlledPredictor
from la_det.modeling.heads.dense_head import DenseHead
from la_det.modeling.heads.filtered_predictor import FilteredPredictor
from la_det.modeling.heads.mask_branch import MaskBranch, SemanticBranch
from la_det.modeling.heads.pyramid_shuffle import QueryPredictor, ShuffledTower
from la_det.modeling.heads.separate_predictor import SeparatePredictor
from la_det.modeling.heads.task_aligned import TaskAlignedPredictor
from la_det.modeling.heads.tower import ConvTower
from la_det.modeling.heads.xavier import XavierPredictor, XavierTower

__all__ = [
    "BoundaryRefinement",
    "BranchPredictor",
    "ControlledPredictor",
    "ConvTower",
    "DenseHead",
    "FilteredPredictor",
    "MaskBranch",
    "QueryPredictor",
    "RefinedPredictor",
    "SemanticBranch",
    "SeparatePredictor",
    "ShuffledTower",
    "TaskAlignedPredictor",
    "XavierPredictor",
    "XavierTower",
]
