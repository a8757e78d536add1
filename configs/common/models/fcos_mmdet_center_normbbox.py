"""MMDetection's FCOS with centre sampling, boxes in strides, centerness on the box tower and the GIoU loss."""

from detectron2.config import LazyCall as L

from la_det.modeling.candidate_rules import TopPairs
from la_det.modeling.criteria import GIoULoss
from la_det.modeling.inference import DenseInference

from .fcos import model

model.criteria[0].losses.loss_box_reg = L(GIoULoss)(weighting="centerness", floor=1e-6, eps=1e-6)
model.inference = L(DenseInference)(
    candidates=L(TopPairs)(cap=False), use_quality=True, quality_exponent=1.0, clip=True, nms_threshold=0.6
)
