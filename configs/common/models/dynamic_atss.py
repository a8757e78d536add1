"""Dynamic ATSS: ATSS with another matcher and other losses; the quality branch predicts the IoU of the box."""

from detectron2.config import LazyCall as L

from la_det.config import named
from la_det.matchers import DynamicATSS
from la_det.modeling.criteria import Criterion, GIoULoss, QualityFocalLoss, SoftTargetLoss

from .atss import model

criteria = [
    L(Criterion)(
        matcher=L(DynamicATSS)(),
        losses=L(named)(
            loss_cls=L(QualityFocalLoss)(),
            loss_box_reg=L(GIoULoss)(weight=2.0, weighting="target", floor=1e-6),
            loss_iou=L(SoftTargetLoss)(),
        ),
    )
]
model.criteria = criteria
