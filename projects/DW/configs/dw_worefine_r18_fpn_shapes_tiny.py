from .dw_r18_fpn_shapes_tiny import dataloader, lr_multiplier, model, optimizer, train

model.head.predictors.main.refinement = None
