"""LLA: FCOS with LLA's assignment, an IoU branch on the box tower, points at the cells' corners (MSRA ResNet-50)."""

from detectron2.config import LazyCall as L

from la_det.config import named
from la_det.matchers import LLA
from la_det.modeling.criteria import FocalLoss, GIoULoss, PredictedIoULoss

from .fcos import model

model.head.predictors.main.priors.offset = 0.0
model.criteria[0].update(
    matcher=L(LLA)(),
    losses=L(named)(
        loss_cls=L(FocalLoss)(),
        loss_box_reg=L(GIoULoss)(weight=2.0, normaliser="positives"),
        loss_iou=L(PredictedIoULoss)(weight=0.5),
    ),
    ignored="counted",
)
model.inference.max_detections = 300
