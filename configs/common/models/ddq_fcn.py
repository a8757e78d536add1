"""DDQ FCN: one-to-one on distinct queries beside one-to-eight on dense ones, in training and head (torchvision R-50).

Inference has one NMS, whatever the classes, which is part of the model.
"""

from detectron2.config import LazyCall as L

from la_det.config import named
from la_det.matchers import DDQ
from la_det.modeling.backbone import LastLevelP6P7WithoutReLU
from la_det.modeling.criteria import Criterion, GIoULoss, QualityFocalLoss
from la_det.modeling.heads import QueryPredictor, ShuffledTower
from la_det.modeling.layers import EvalBatchNorm2d
from la_det.modeling.query_inference import QueryInference
from la_det.steps.queries import DistinctQueries
from la_det.structures import PointGenerator, Score

from .backbone import resnet_fpn, torchvision_pixels
from .fcos import model

PRIOR_BIAS = -4.595119850134589  # of the probability 0.01


def predictor(**options):
    """The last layers of a branch."""
    return L(QueryPredictor)(
        in_channels="${....backbone.out_channels}",
        num_classes="${....num_classes}",
        priors=L(PointGenerator)(),
        **options,
    )


def criterion(branch, prefix, topk, nms_threshold):
    """A branch's matching and its losses, divided by the sum of the soft targets."""
    return L(Criterion)(
        branch=branch,
        queries=L(DistinctQueries)(topk=1000, nms_threshold=nms_threshold),
        matcher=L(DDQ)(topk=topk),
        score=L(Score)(gate="quality", square_root=True),
        losses=L(named)(
            **{
                f"{prefix}loss_cls": L(QualityFocalLoss)(normaliser="targets"),
                f"{prefix}loss_bbox": L(GIoULoss)(weight=2.0, weighting="target", eps=1e-6),
            }
        ),
    )


model.update(torchvision_pixels)
model.backbone = resnet_fpn(50, norm=EvalBatchNorm2d, p6_from="res5")
model.backbone.top_block = L(LastLevelP6P7WithoutReLU)(in_channels=2048, out_channels=256, in_feature="res5")
for name, shuffled in (("cls_tower", 2), ("box_tower", 1)):
    model.head[name] = L(ShuffledTower)(in_channels="${...backbone.out_channels}", bias=False, shuffled=shuffled)
model.head.level_scales = False
model.head.predictors = L(named)(main=predictor(), auxiliary=predictor(default_squeeze=True, quality_bias=PRIOR_BIAS))
model.criteria = [criterion("main", "", 1, 0.7), criterion("auxiliary", "aux_", 8, None)]
model.inference = L(QueryInference)(
    queries=L(DistinctQueries)(topk=1000, nms_threshold=0.7),
    score=L(Score)(gate="quality", square_root=True),
    score_threshold=0.0,
    nms_threshold=None,
    clip=True,
    max_detections=300,
)
