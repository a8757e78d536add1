"""DATE-R: DATE with RetinaNet as the one-to-many branch, with 9 anchors per cell around the cells' corners."""

from detectron2.config import LazyCall as L

from la_det.config import named
from la_det.matchers import MaxIoU
from la_det.modeling.criteria import Criterion, RetinaNetBoxLoss, RetinaNetFocalLoss
from la_det.modeling.heads import BranchPredictor
from la_det.structures import AnchorGenerator, DeltaCodec

from .date_f import model

model.head.predictors.one_to_many = L(BranchPredictor)(
    in_channels="${....backbone.out_channels}",
    num_classes="${....num_classes}",
    priors=L(AnchorGenerator)(sizes=[4 * 2 ** (octave / 3) for octave in range(3)], ratios=[0.5, 1.0, 2.0], offset=0.0),
    codec=L(DeltaCodec)(),
    box_activation="linear",
)
model.criteria[1] = L(Criterion)(
    branch="one_to_many",
    matcher=L(MaxIoU)(pad_to=32),
    losses=L(named)(
        loss_retina_cls=L(RetinaNetFocalLoss)(weight=2.0),
        loss_retina_box=L(RetinaNetBoxLoss)(weight=2.0),
    ),
)
model.inference.candidates.topk = 1000
