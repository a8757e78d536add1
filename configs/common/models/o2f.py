"""o2f (torchvision ResNet-50, affine parameters of its norms trained, P6 from P5); no NMS."""

from detectron2.config import LazyCall as L

from la_det.config import named
from la_det.matchers import O2F
from la_det.modeling.candidate_rules import TopPairs
from la_det.modeling.criteria import Criterion, GIoULoss, SoftLabelLoss
from la_det.modeling.heads import ConvTower
from la_det.modeling.inference import DenseInference
from la_det.modeling.layers import EvalBatchNorm2d
from la_det.structures import Score

from .backbone import resnet_fpn, torchvision_pixels
from .fcos import model

model.update(torchvision_pixels)
model.backbone = resnet_fpn(50, norm=EvalBatchNorm2d)
model.head.predictors.main.quality_tower = L(ConvTower)(in_channels="${..in_channels}", channels=64, num_convs=3)
model.criteria = [
    L(Criterion)(
        matcher=L(O2F)(),
        score=L(Score)(gate="quality"),
        losses=L(named)(
            loss_cls=L(SoftLabelLoss)(),
            loss_bbox=L(GIoULoss)(weight=2.0, weighting="centerness", floor=1e-6, eps=1e-6),
        ),
    )
]
model.inference = L(DenseInference)(
    score=L(Score)(gate="quality"), candidates=L(TopPairs)(cap=False), nms_threshold=None
)
