"""AutoAssign: locations at their cells' corners, implicit objectness, P6 from C5 (MSRA ResNet-50)."""

from detectron2.config import LazyCall as L

from la_det.config import named
from la_det.matchers import AutoAssign
from la_det.modeling.candidate_rules import TopPairs
from la_det.modeling.criteria import AutoAssignCenterLoss, AutoAssignNegativeLoss, AutoAssignPositiveLoss, Criterion
from la_det.modeling.inference import DenseInference
from la_det.structures import Score

from .backbone import resnet_fpn
from .fcos import model

model.backbone = resnet_fpn(50, stride_in_1x1=True, p6_from="res5")
model.head.predictors.main.priors.offset = 0.0
model.head.predictors.main.update(prior_prob=0.02, box_bias=4.0)
model.criteria = [
    L(Criterion)(
        matcher=L(AutoAssign)(num_classes="${....num_classes}"),
        score=L(Score)(gate="quality"),
        losses=L(named)(
            loss_pos=L(AutoAssignPositiveLoss)(),
            loss_neg=L(AutoAssignNegativeLoss)(),
            loss_center=L(AutoAssignCenterLoss)(),
        ),
    )
]
model.inference = L(DenseInference)(score=L(Score)(gate="quality"), candidates=L(TopPairs)(), nms_threshold=0.6)
