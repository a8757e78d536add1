"""PAA: ATSS's network whose third branch predicts the box's IoU, and score voting after NMS."""

from detectron2.config import LazyCall as L

from la_det.config import named
from la_det.matchers import PAA
from la_det.modeling.criteria import Criterion, FocalLoss, GIoULoss, PredictedIoULoss
from la_det.modeling.score_voting import ScoreVoting

from .atss import model, use_dcn

model.criteria = [
    L(Criterion)(
        matcher=L(PAA)(),
        losses=L(named)(
            loss_cls=L(FocalLoss)(),
            loss_box_reg=L(GIoULoss)(weight=1.3, weighting="iou", floor=0.0),
            loss_iou=L(PredictedIoULoss)(weight=0.5),
        ),
    )
]
model.inference.voting = L(ScoreVoting)()
