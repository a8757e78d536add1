from ....configs.common.shapes_crowd import dataloader, lr_multiplier, make_twin, optimizer, train
from .lla_r50_fpn_30k_crowdhuman import model

make_twin(model)
model.criteria[0].ignored = "counted"
model.inference.max_detections = 300
dataloader.train.mapper.ignored = "mark"
