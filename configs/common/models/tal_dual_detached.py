"""Consistent dual assignment as in YOLOv10: each branch has its own towers, and one-to-one trains nothing below them.

Our combination, not a published one.
"""

from detectron2.config import LazyCall as L

from la_det.modeling.heads import ConvTower, SeparatePredictor
from la_det.structures import PointGenerator

from .tal_dual import model


def predictor(detached):
    """A branch with towers of its own."""
    return L(SeparatePredictor)(
        cls_tower=L(ConvTower)(in_channels="${..in_channels}", bias=False),
        box_tower=L(ConvTower)(in_channels="${..in_channels}", bias=False),
        detached=detached,
        in_channels="${....backbone.out_channels}",
        num_classes="${....num_classes}",
        priors=L(PointGenerator)(),
        box_bias=2.0,
    )


model.head.update(cls_tower=None, box_tower=None, level_scales=False)
model.head.predictors.one_to_one = predictor(detached=True)
model.head.predictors.one_to_many = predictor(detached=False)
