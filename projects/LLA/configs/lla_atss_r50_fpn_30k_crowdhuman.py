"""The ATSS that LLA was compared with: its FCOS, which predicts distances, with ATSS's rule on anchors."""

from detectron2.config import LazyCall as L

from la_det.matchers import ATSS
from la_det.structures import AnchorGenerator

from .lla_fcos_r50_fpn_30k_crowdhuman import dataloader, lr_multiplier, model, optimizer, train

model.head.predictors.main.priors = L(AnchorGenerator)(sizes=[8.0], offset=0.0)
model.criteria[0].matcher = L(ATSS)(margin=0.0)
model.criteria[0].losses.loss_box_reg.weight = 2.0
