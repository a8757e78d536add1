from ....configs.common.mmdet_1x import dataloader, lr_multiplier, optimizer, train
from ....configs.common.models.fcos_mmdet_center_normbbox import model

optimizer.params.update(bias_lr_factor=2.0, weight_decay_bias=0.0, norm_biases_too=False)
