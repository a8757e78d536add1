"""DeFCN's ATSS baseline: its FCOS, which predicts distances, with ATSS's rule on anchors that exist only in it."""

from detectron2.config import LazyCall as L

from la_det.matchers import ATSS
from la_det.structures import AnchorGenerator

from ....configs.common.data.crowdhuman import dataloader
from ....configs.common.models.fcos import model
from ....configs.common.optim import SGD as optimizer
from ....configs.common.schedules import multistep
from ....configs.common.train import train

model.num_classes = 1
model.head.predictors.main.priors = L(AnchorGenerator)(sizes=[8.0])
model.criteria[0].matcher = L(ATSS)(margin=0.0)
model.criteria[0].losses.loss_box_reg.weight = 2.0
model.inference.max_detections = 500

lr_multiplier = multistep(30000, (20000, 25000))
train.max_iter = 30000
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
