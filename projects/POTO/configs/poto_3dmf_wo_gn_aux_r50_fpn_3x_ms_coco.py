from .poto_3dmf_aux_r50_fpn_3x_ms_coco import dataloader, lr_multiplier, model, optimizer, train

model.head.predictors.main.max_filtering.groups = None
