"""POTO: FCOS without centerness, trained one-to-one; no NMS."""

from detectron2.config import LazyCall as L

from la_det.matchers import POTO

from .fcos_wo_ctrness import model

model.criteria[0].matcher = L(POTO)()
model.criteria[0].losses.loss_box_reg.weight = 2.0
model.inference.nms_threshold = None
