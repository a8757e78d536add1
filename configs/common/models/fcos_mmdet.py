"""MMDetection's FCOS: no centre sampling, boxes exp(x) pixels, centerness on the classification tower (Caffe R-50)."""

from detectron2.config import LazyCall as L

from la_det.modeling.candidate_rules import TopPairs
from la_det.modeling.criteria import IoULoss
from la_det.modeling.inference import DenseInference

from .fcos import model

model.pixel_mean = [102.9801, 115.9465, 122.7717]
for _tower in (model.head.cls_tower, model.head.box_tower):
    _tower.bias = False
model.head.predictors.main.update(box_activation="exp", quality_on="cls")
model.criteria[0].matcher.center_radius = 0
model.criteria[0].losses.loss_box_reg = L(IoULoss)()
model.inference = L(DenseInference)(
    candidates=L(TopPairs)(cap=False), use_quality=True, quality_exponent=1.0, clip=True, nms_threshold=0.5
)
