"""OneNet on FCOS's head without a quality branch: bipartite matching over all locations; no NMS (torchvision R-50)."""

from detectron2.config import LazyCall as L

from la_det.config import named
from la_det.matchers import Hungarian
from la_det.modeling.candidate_rules import TopPairs
from la_det.modeling.criteria import Criterion, FocalLoss, GIoULoss, RelativeL1Loss
from la_det.modeling.heads import XavierPredictor, XavierTower
from la_det.modeling.inference import DenseInference
from la_det.steps.score import DETRCost

from .backbone import resnet_fpn, torchvision_pixels
from .fcos import model

model.update(torchvision_pixels)
model.backbone = resnet_fpn(50, p6_from="res5")
for _tower in (model.head.cls_tower, model.head.box_tower):
    _tower.update(_target_=XavierTower, bias=False)
model.head.predictors.main.update(_target_=XavierPredictor, quality_on=None)
model.criteria = [
    L(Criterion)(
        matcher=L(Hungarian)(cost=L(DETRCost)(corners=True, eps=1e-8)),
        losses=L(named)(
            loss_ce=L(FocalLoss)(weight=2.0),
            loss_giou=L(GIoULoss)(weight=2.0),
            loss_bbox=L(RelativeL1Loss)(weight=5.0, corners=True, floor=1.0),
        ),
    )
]
# The best of all levels together are among the best of each.
model.inference = L(DenseInference)(
    candidates=L(TopPairs)(topk="${..max_detections}", cap=False),
    score_threshold=0.0,
    nms_threshold=None,
    max_detections=100,
)
