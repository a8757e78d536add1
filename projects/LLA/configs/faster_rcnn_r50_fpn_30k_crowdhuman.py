"""Faster R-CNN by Detectron2's own model, with the settings of the LLA repository's two-stage reference.

Detectron2's differs from that in two things: it clips proposals to the image, and it knows no ignore regions, so that
ignored boxes are background.
"""

from detectron2 import model_zoo

from ....configs.common.lla_30k import dataloader, optimizer, train
from ....configs.common.schedules import multistep

model = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model
for _key in ("mask_in_features", "mask_pooler", "mask_head"):
    model.roi_heads.pop(_key)
model.backbone.bottom_up.freeze_at = 2
model.proposal_generator.update(pre_nms_topk=[12000, 6000], post_nms_topk=[2000, 1000])
model.proposal_generator.anchor_generator.aspect_ratios = [1.0, 2.0, 3.0]
model.roi_heads.update(num_classes=1, positive_fraction=0.5)
model.roi_heads.box_predictor.test_topk_per_image = 300

dataloader.train.mapper.ignored = "drop"
optimizer.lr = 0.02
lr_multiplier = multistep(28125, (18750, 24375))
