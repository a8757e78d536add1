"""MMDetection's ATSS: anchors around the cells' corners, P7 from P6 without a ReLU (R-50 of torchvision)."""

from detectron2.config import LazyCall as L

from la_det.modeling.backbone import LastLevelP6P7WithoutReLU
from la_det.modeling.layers import EvalBatchNorm2d

from .atss import model
from .backbone import resnet_fpn, torchvision_pixels

model.update(torchvision_pixels)
model.backbone = resnet_fpn(50, norm=EvalBatchNorm2d)
model.backbone.top_block = L(LastLevelP6P7WithoutReLU)(in_channels=256, out_channels=256, in_feature="p5")
for _tower in (model.head.cls_tower, model.head.box_tower):
    _tower.bias = False
model.head.predictors.main.priors.offset = 0.0
model.criteria[0].losses.loss_box_reg.update(floor=1.0, eps=1e-6)
model.inference.quality_exponent = 1.0
model.inference.candidates.by_quality = False
