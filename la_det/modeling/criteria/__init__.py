"""Training criteria. A criterion has a matcher, a score, and loss terms that read the matcher's assignment."""

from la_det.modeling.criteria.autoassign import AutoAssignCenterLoss, AutoAssignNegativeLoss, AutoAssignPositiveLoss
from la_det.modeling.criteria.boxes import CIoULoss, GIoULoss, IoULoss, RelativeL1Loss
from la_det.modeling.criteria.by_soft_targets import BySoftTargets
from la_det.modeling.criteria.classification import FocalLoss
from la_det.modeling.criteria.criterion import Criterion, loss_terms
from la_det.modeling.criteria.decision import Decision
from la_det.modeling.criteria.dw import DWBoxLoss, DWNegativeLoss, DWPositiveLoss
from la_det.modeling.criteria.masks import MaskLoss, SemanticLoss
from la_det.modeling.criteria.quality import CenternessLoss, PredictedIoULoss, SoftTargetLoss
from la_det.modeling.criteria.quality_focal import CrossEntropyLoss, QualityFocalLoss, VarifocalLoss
from la_det.modeling.criteria.reduction import LossTerm, reduce_losses
from la_det.modeling.criteria.retinanet import RetinaNetBoxLoss, RetinaNetFocalLoss
from la_det.modeling.criteria.simota import ObjectnessLoss, PositiveClassLoss, SquaredIoULoss
from la_det.modeling.criteria.soft_label import SoftLabelLoss

__all__ = [
    "AutoAssignCenterLoss",
    "AutoAssignNegativeLoss",
    "AutoAssignPositiveLoss",
    "BySoftTargets",
    "CIoULoss",
    "CenternessLoss",
    "Criterion",
    "CrossEntropyLoss",
    "DWBoxLoss",
    "DWNegativeLoss",
    "DWPositiveLoss",
    "Decision",
    "FocalLoss",
    "GIoULoss",
    "IoULoss",
    "LossTerm",
    "MaskLoss",
    "ObjectnessLoss",
    "PositiveClassLoss",
    "PredictedIoULoss",
    "QualityFocalLoss",
    "RelativeL1Loss",
    "RetinaNetBoxLoss",
    "RetinaNetFocalLoss",
    "SemanticLoss",
    "SoftLabelLoss",
    "SoftTargetLoss",
    "SquaredIoULoss",
    "VarifocalLoss",
    "loss_terms",
    "reduce_losses",
]
