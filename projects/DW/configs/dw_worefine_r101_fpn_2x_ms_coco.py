from la_det.modeling.heads import BranchPredictor

from .dw_r50_fpn_2x_ms_coco import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages.depth = 101
model.head.predictors.main._target_ = BranchPredictor
del model.head.predictors.main.refinement
train.init_checkpoint = "torchvision://resnet101"
