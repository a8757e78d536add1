from .dw_r50_fpn_1x_coco import dataloader, lr_multiplier, model, optimizer, train

model.head.predictors.main.refinement = None
