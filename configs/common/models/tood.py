"""TOOD, anchor-free: T-head, ATSS in the first 4 of 12 epochs, then task-aligned assignment (torchvision ResNet-50)."""

from detectron2.config import LazyCall as L

from la_det.config import named
from la_det.matchers import ATSS, TOOD, Switch
from la_det.modeling.backbone import LastLevelP6P7WithoutReLU
from la_det.modeling.candidate_rules import LocationsFirst
from la_det.modeling.criteria import BySoftTargets, Criterion, FocalLoss, GIoULoss, QualityFocalLoss
from la_det.modeling.heads import TaskAlignedPredictor
from la_det.modeling.inference import DenseInference
from la_det.modeling.layers import EvalBatchNorm2d
from la_det.structures import AnchorGenerator, LTRBCodec, Score

from .backbone import resnet_fpn, torchvision_pixels
from .fcos import model

model.update(torchvision_pixels)
model.backbone = resnet_fpn(50, norm=EvalBatchNorm2d)
model.backbone.top_block = L(LastLevelP6P7WithoutReLU)(in_channels=256, out_channels=256, in_feature="p5")
model.head.update(cls_tower=None, box_tower=None)
model.head.predictors.main = L(TaskAlignedPredictor)(
    in_channels="${....backbone.out_channels}",
    num_classes="${....num_classes}",
    # ATSS's anchors; predictions are relative to their centres.
    priors=L(AnchorGenerator)(sizes=[8.0], offset=0.0),
    coarse_codec=L(LTRBCodec)(in_strides=True),
    box_activation="exp",
    num_convs=6,
)
_box = dict(weight=2.0, floor=0.0, eps=1e-6)
model.criteria = [
    L(Criterion)(
        matcher=L(Switch)(first=L(ATSS)(pad_to=32), then=L(TOOD)(), at=4 / 12),
        score=L(Score)(gate="quality", square_root=True),
        losses=L(named)(
            loss_cls=L(BySoftTargets)(
                without=L(FocalLoss)(floor=0.0),
                given=L(QualityFocalLoss)(normaliser="targets", floor=0.0),
            ),
            loss_bbox=L(BySoftTargets)(
                without=L(GIoULoss)(weighting="centerness", **_box),
                given=L(GIoULoss)(weighting="target", **_box),
            ),
        ),
    )
]
model.inference = L(DenseInference)(
    score=L(Score)(gate="quality", square_root=True), candidates=L(LocationsFirst)(), clip=True, nms_threshold=0.6
)
