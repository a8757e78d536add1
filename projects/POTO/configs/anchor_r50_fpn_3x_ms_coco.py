from detectron2.config import LazyCall as L

from la_det.matchers import OneToOneAnchor
from la_det.structures import AnchorGenerator, DeltaCodec

from .poto_r50_fpn_3x_ms_coco import dataloader, lr_multiplier, model, optimizer, train

model.criteria[0].matcher = L(OneToOneAnchor)()
model.head.level_scales = False
model.head.predictors.main.update(
    priors=L(AnchorGenerator)(sizes=[4.0]),
    codec=L(DeltaCodec)(),
    box_activation="linear",
)
