from la_det.modeling.heads import BranchPredictor

from .dw_r50_fpn_1x_coco import dataloader, lr_multiplier, model, optimizer, train

model.head.predictors.main._target_ = BranchPredictor
del model.head.predictors.main.refinement
