from .poto_r50_fpn_3x_ms_coco import dataloader, lr_multiplier, model, optimizer, train

model.criteria[0].matcher.hungarian = False
