from ....configs.common.models.o2f_condinst import model
from ....configs.common.schedules import multistep
from .o2f_r50_fpn_1x_coco import dataloader, optimizer, train

dataloader.train.mapper.update(use_instance_mask=True, instance_mask_format="bitmask")
optimizer.params.update(bias_lr_factor=2.0, weight_decay_bias=0.0, weight_decay_norm=1e-4, norm_biases_too=False)
lr_multiplier = multistep(87960, (58640, 80630), warmup_iter=500)
