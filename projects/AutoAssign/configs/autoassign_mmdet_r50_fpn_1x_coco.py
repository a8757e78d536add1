from ....configs.common.mmdet_1x import dataloader, optimizer, train
from ....configs.common.models.autoassign_mmdet import model
from ....configs.common.schedules import lr_multiplier_12_epochs as lr_multiplier

optimizer.params.weight_decay_norm = 0.0
