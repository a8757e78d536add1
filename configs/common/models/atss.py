"""ATSS: one square anchor of 8 strides per location, box deltas, centerness on the box tower (MSRA ResNet-50)."""

from detectron2.config import LazyCall as L

from la_det.matchers import ATSS
from la_det.modeling.candidate_rules import TopPairs
from la_det.structures import AnchorGenerator, DeltaCodec

from .backbone import resnet_fpn
from .fcos import model

model.pixel_mean = [102.9801, 115.9465, 122.7717]
# box_offset=1 is the pixel-inclusive convention that the official weights were trained with.
model.head.predictors.main.update(
    priors=L(AnchorGenerator)(sizes=[8.0], box_offset=0),
    codec=L(DeltaCodec)(weights=[10.0, 10.0, 5.0, 5.0]),
    box_activation="linear",
)
model.criteria[0].matcher = L(ATSS)()
model.criteria[0].losses.loss_box_reg.update(weight=2.0, floor=0.0)
model.inference.update(candidates=L(TopPairs)(cap=False, by_quality=True), clip=True)


def use_resnext(model, num_groups, width_per_group):
    """Gives a model ResNeXt-101 for FAIR's weights, with the stride in the 3x3 convolutions."""
    model.backbone = resnet_fpn(101, num_groups=num_groups, width_per_group=width_per_group)


def use_dcn(model, stages):
    """Gives a model modulated deformable convolutions in the backbone's `stages` and as the last of both towers."""
    model.backbone.bottom_up.stages.update(dcn_stages=stages, offset_init="kaiming_uniform")
    for tower in (model.head.cls_tower, model.head.box_tower):
        tower.last_dcn = "normal"
