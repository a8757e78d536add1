from ....configs.common.models.backbone import timm_fpn
from ....configs.common.optim import AdamW as optimizer
from .o2f_r50_fpn_1x_coco import dataloader, lr_multiplier, model, train

model.backbone = timm_fpn("swin_tiny_patch4_window7_224", out_norm=True, strict_img_size=False, drop_path_rate=0.2)
optimizer.lr = 1e-4
# By names, as in the official code: the head's GN decays.
optimizer.params.update(weight_decay_norm=None, weight_decays={"norm": 0.0, "relative_position_bias_table": 0.0})
train.init_checkpoint = "timm://swin_tiny_patch4_window7_224"
