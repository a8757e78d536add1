from .tood_r101_fpn_2x_ms_coco import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages.dcn_stages = ["res3", "res4", "res5"]
model.head.predictors.main.num_dcn = 2
