"""SimOTA on FCOS's network, whose quality branch is the objectness: YOLOX's released rule, its losses and inference."""

import math

from detectron2.config import LazyCall as L

from la_det.config import named
from la_det.matchers import SimOTA
from la_det.modeling.candidate_rules import TopClass
from la_det.modeling.criteria import Criterion, ObjectnessLoss, PositiveClassLoss, SquaredIoULoss
from la_det.modeling.inference import DenseInference
from la_det.structures import Score

from .fcos import model

model.head.predictors.main.quality_bias = -math.log(99)
model.criteria = [
    L(Criterion)(
        matcher=L(SimOTA)(),
        score=L(Score)(gate="quality", square_root=True),
        losses=L(named)(
            loss_iou=L(SquaredIoULoss)(),
            loss_obj=L(ObjectnessLoss)(),
            loss_cls=L(PositiveClassLoss)(),
        ),
    )
]
model.inference = L(DenseInference)(
    score=L(Score)(gate="quality"), candidates=L(TopClass)(), score_threshold=0.01, nms_threshold=0.65
)
