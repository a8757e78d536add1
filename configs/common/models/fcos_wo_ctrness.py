"""FCOS without centerness: the one-to-many baseline of DeFCN."""

from detectron2.config import LazyCall as L

from la_det.config import named
from la_det.modeling.criteria import FocalLoss, GIoULoss

from .fcos import model

model.head.predictors.main.quality_on = None
model.criteria[0].losses = L(named)(loss_cls=L(FocalLoss)(), loss_box_reg=L(GIoULoss)())
model.inference.use_quality = False
