"""DW with box refinement (torchvision ResNet-50, affine parameters of its norms trained, P6 from P5)."""

from detectron2.config import LazyCall as L

from la_det.config import named
from la_det.matchers import DW
from la_det.modeling.candidate_rules import TopPairs
from la_det.modeling.criteria import Criterion, DWBoxLoss, DWNegativeLoss, DWPositiveLoss
from la_det.modeling.heads import BoundaryRefinement, RefinedPredictor
from la_det.modeling.inference import DenseInference
from la_det.modeling.layers import EvalBatchNorm2d
from la_det.structures import Score

from .backbone import resnet_fpn, torchvision_pixels
from .fcos import model

model.update(torchvision_pixels)
model.backbone = resnet_fpn(50, norm=EvalBatchNorm2d)
model.head.predictors.main.update(
    _target_=RefinedPredictor,
    prior_prob=0.02,
    box_bias=4.0,
    refinement=L(BoundaryRefinement)(in_channels="${..in_channels}"),
)
model.criteria = [
    L(Criterion)(
        matcher=L(DW)(),
        score=L(Score)(gate="quality"),
        losses=L(named)(
            loss_cls_pos=L(DWPositiveLoss)(),
            loss_loc=L(DWBoxLoss)(),
            loss_cls_neg=L(DWNegativeLoss)(),
        ),
    )
]
model.inference = L(DenseInference)(
    score=L(Score)(gate="quality"), candidates=L(TopPairs)(cap=False), clip=True, nms_threshold=0.6
)
