"""o2f-CondInst: the detector of o2f with dynamic mask heads, for instance segmentation; no NMS."""

from detectron2.config import LazyCall as L

from la_det.config import named
from la_det.modeling.candidate_rules import TopLocations
from la_det.modeling.criteria import MaskLoss, SemanticLoss
from la_det.modeling.heads import ControlledPredictor, MaskBranch, SemanticBranch
from la_det.modeling.inference import DenseInference
from la_det.modeling.mask_inference import MaskInference
from la_det.structures import LTRBCodec

from .o2f import model

model.head.predictors.main.update(
    _target_=ControlledPredictor,
    box_activation="relu",
    codec=L(LTRBCodec)(in_strides=True),
    controller_channels=169,  # 10 x 8 + 8 x 8 + 8 x 1 weights and 8 + 8 + 1 biases
)
model.head.image_branches = L(named)(
    mask_features=L(MaskBranch)(in_channels="${....backbone.out_channels}"),
    semantic=L(SemanticBranch)(in_channels="${....backbone.out_channels}", num_classes="${....num_classes}"),
)
model.criteria[0].matcher.mask_centers = True
model.criteria[0].losses.loss_bbox.weight = 1.0
model.criteria[0].losses.update(loss_mask=L(MaskLoss)(weight=2.0), loss_sem=L(SemanticLoss)())
# The threshold is for the class probability alone, unlike o2f's.
model.inference = L(DenseInference)(
    candidates=L(TopLocations)(topk=1000),
    use_quality=True,
    quality_exponent=1.0,
    nms_threshold=None,
)
model.mask_inference = L(MaskInference)()
