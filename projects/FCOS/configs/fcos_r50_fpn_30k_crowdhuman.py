from ....configs.common.data.crowdhuman import dataloader
from ....configs.common.models.fcos import model
from ....configs.common.optim import SGD as optimizer
from ....configs.common.schedules import multistep
from ....configs.common.train import train

model.num_classes = 1
model.inference.max_detections = 500

lr_multiplier = multistep(30000, (20000, 25000))
train.max_iter = 30000
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
