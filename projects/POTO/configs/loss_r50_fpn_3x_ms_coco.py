from detectron2.config import LazyCall as L

from la_det.matchers import ForegroundLoss

from .poto_r50_fpn_3x_ms_coco import dataloader, lr_multiplier, model, optimizer, train

model.criteria[0].matcher = L(ForegroundLoss)()
