"""FCOS with centerness on the box tower, as in the DeFCN code base (MSRA ResNet-50, P6 from P5)."""

from detectron2.config import LazyCall as L

from la_det.config import named
from la_det.matchers import FCOS
from la_det.modeling import AssignmentDetector
from la_det.modeling.candidate_rules import TopPairs
from la_det.modeling.criteria import CenternessLoss, Criterion, FocalLoss, GIoULoss
from la_det.modeling.heads import BranchPredictor, ConvTower, DenseHead
from la_det.modeling.inference import DenseInference
from la_det.structures import PointGenerator

from .backbone import msra_pixels, resnet_fpn

model = L(AssignmentDetector)(
    num_classes=80,
    backbone=resnet_fpn(50, stride_in_1x1=True),
    head=L(DenseHead)(
        cls_tower=L(ConvTower)(in_channels="${...backbone.out_channels}"),
        box_tower=L(ConvTower)(in_channels="${...backbone.out_channels}"),
        predictors=L(named)(
            main=L(BranchPredictor)(
                in_channels="${....backbone.out_channels}",
                num_classes="${....num_classes}",
                priors=L(PointGenerator)(),
                quality_on="box",
            )
        ),
    ),
    criteria=[
        L(Criterion)(
            matcher=L(FCOS)(size_ranges=[[-1, 64], [64, 128], [128, 256], [256, 512], [512, float("inf")]]),
            losses=L(named)(
                loss_cls=L(FocalLoss)(),
                loss_box_reg=L(GIoULoss)(weighting="centerness"),
                loss_centerness=L(CenternessLoss)(),
            ),
        )
    ],
    inference=L(DenseInference)(candidates=L(TopPairs)(), use_quality=True, nms_threshold=0.6),
    max_iter="${training_length:}",
    **msra_pixels,
)
