from detectron2.config import LazyCall as L

from la_det.matchers import OneToOneCenter

from .poto_r50_fpn_3x_ms_coco import dataloader, lr_multiplier, model, optimizer, train

model.criteria[0].matcher = L(OneToOneCenter)(
    size_ranges=[[-1, 64], [64, 128], [128, 256], [256, 512], [512, float("inf")]]
)
