"""The FCOS that LLA was compared with: DeFCN's with locations at cell corners; matches ignored ground truths too."""

from ....configs.common.lla_30k import dataloader, lr_multiplier, optimizer, train
from ....configs.common.models.fcos import model

model.num_classes = 1
model.head.predictors.main.priors.offset = 0.0
model.criteria[0].ignored = "dropped"
model.criteria[0].losses.loss_box_reg.normaliser = "positives"
model.inference.max_detections = 300
