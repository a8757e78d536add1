"""DATE-F: a one-to-one branch trained as POTO and a one-to-many branch trained as FCOS, on shared towers; no NMS.

Inference reads the one-to-one branch. Any scheme can be a branch: date_r, date_atss and date_dw replace the second one.
"""

from detectron2.config import LazyCall as L

from la_det.config import named
from la_det.matchers import POTO
from la_det.modeling.candidate_rules import TopPairs
from la_det.modeling.criteria import CenternessLoss, Criterion, FocalLoss, GIoULoss, IoULoss, RelativeL1Loss
from la_det.modeling.heads import BranchPredictor
from la_det.modeling.inference import DenseInference
from la_det.structures import PointGenerator

from .fcos import model

fcos_matcher = model.criteria[0].matcher
fcos_matcher.center_radius = 0
model.pixel_mean = [102.9801, 115.9465, 122.7717]
model.head.cls_tower.bias = False
model.head.box_tower.bias = False
model.head.predictors = L(named)(
    one_to_one=L(BranchPredictor)(
        in_channels="${....backbone.out_channels}",
        num_classes="${....num_classes}",
        priors=L(PointGenerator)(),
    ),
    one_to_many=L(BranchPredictor)(
        in_channels="${....backbone.out_channels}",
        num_classes="${....num_classes}",
        priors=L(PointGenerator)(),
        box_activation="exp",
        quality_on="cls",
    ),
)
model.criteria = [
    L(Criterion)(
        branch="one_to_one",
        matcher=L(POTO)(outside=0.0),
        losses=L(named)(
            loss_o2o_cls=L(FocalLoss)(weight=2.0),
            loss_o2o_l1=L(RelativeL1Loss)(weight=5.0),
            loss_o2o_giou=L(GIoULoss)(weight=2.0, floor=0.0, eps=1e-6),
        ),
    ),
    L(Criterion)(
        branch="one_to_many",
        matcher=fcos_matcher,
        losses=L(named)(
            loss_fcos_cls=L(FocalLoss)(),
            loss_fcos_iou=L(IoULoss)(),
            loss_fcos_ctr=L(CenternessLoss)(),
        ),
    ),
]
model.inference = L(DenseInference)(
    candidates=L(TopPairs)(topk=100, cap=False), score_threshold=0.01, clip=True, nms_threshold=None
)
model.inference_branch = "one_to_one"
