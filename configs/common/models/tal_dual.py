"""Consistent dual assignment on DATE's head: TAL with 10 locations per object beside TAL with 1; no NMS.

Inference reads the one-to-one branch. Our combination, not a published one.
"""

from detectron2.config import LazyCall as L

from la_det.config import named
from la_det.matchers import TAL
from la_det.modeling.candidate_rules import TopPairs
from la_det.modeling.criteria import CIoULoss, Criterion, CrossEntropyLoss
from la_det.modeling.heads import BranchPredictor
from la_det.modeling.inference import DenseInference
from la_det.structures import PointGenerator

from .date_f import model


def predictor():
    """The last layers of a branch: those of POTO, with boxes that begin 4 strides wide.

    A location whose box has no area aligns with nothing, and so would never learn to have one.
    """
    return L(BranchPredictor)(
        in_channels="${....backbone.out_channels}",
        num_classes="${....num_classes}",
        priors=L(PointGenerator)(),
        box_bias=2.0,
    )


model.head.predictors.one_to_one = predictor()
model.head.predictors.one_to_many = predictor()
model.criteria = [
    L(Criterion)(
        branch="one_to_one",
        matcher=L(TAL)(topk=1),
        losses=L(named)(loss_o2o_cls=L(CrossEntropyLoss)(weight=0.5), loss_o2o_ciou=L(CIoULoss)(weight=7.5)),
    ),
    L(Criterion)(
        branch="one_to_many",
        matcher=L(TAL)(topk=10),
        losses=L(named)(loss_o2m_cls=L(CrossEntropyLoss)(weight=0.5), loss_o2m_ciou=L(CIoULoss)(weight=7.5)),
    ),
]
model.inference = L(DenseInference)(candidates=L(TopPairs)(cap=False), nms_threshold=None)
