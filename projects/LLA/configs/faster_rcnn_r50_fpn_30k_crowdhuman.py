"""Faster R-CNN by Detectron2's own model, with the settings of the LLA repository's two-stage reference.

Among them is the Smooth L1 loss with beta 1 in both stages, where Detectron2's own recipes have L1, and that proposals
have more than 2 pixels. Detectron2's model differs from the reference in two things: it clips proposals to the image,
and it knows no ignore regions, so that ignored boxes are background.
"""

from ....configs.common.lla_30k import dataloader, optimizer, train
from ....configs.common.models.faster_rcnn import model
from ....configs.common.schedules import multistep

model.proposal_generator.update(
    pre_nms_topk=[12000, 6000], post_nms_topk=[2000, 1000], smooth_l1_beta=1.0, min_box_size=2.0
)
model.proposal_generator.anchor_generator.aspect_ratios = [1.0, 2.0, 3.0]
model.roi_heads.update(num_classes=1, positive_fraction=0.5)
model.roi_heads.box_predictor.update(test_topk_per_image=300, smooth_l1_beta=1.0)

dataloader.train.mapper.ignored = "remove"
optimizer.lr = 0.02
lr_multiplier = multistep(28125, (18750, 24375))
