from ....configs.common.data.crowdhuman import dataloader
from ....configs.common.models.poto import model
from ....configs.common.optim import SGD as optimizer
from ....configs.common.schedules import multistep
from ....configs.common.train import train


def one_class(model):
    """CrowdHuman's setting of a POTO model: persons only, candidates from the whole box, 500 detections."""
    model.num_classes = 1
    model.criteria[0].matcher.center_radius = 0.0
    model.inference.max_detections = 500


one_class(model)
lr_multiplier = multistep(30000, (20000, 25000))
train.max_iter = 30000
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
