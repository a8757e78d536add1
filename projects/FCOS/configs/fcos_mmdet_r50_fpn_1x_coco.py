from ....configs.common.mmdet_1x import dataloader, optimizer, train
from ....configs.common.models.fcos_mmdet import model
from ....configs.common.schedules import multistep

lr_multiplier = multistep(87960, (58640, 80630), warmup_iter=500, warmup_factor=1 / 3, warmup_method="constant")
optimizer.params.update(bias_lr_factor=2.0, weight_decay_bias=0.0, norm_biases_too=False)
train.clip_grad.max_norm = 35.0
