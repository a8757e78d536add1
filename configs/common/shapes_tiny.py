"""The small setting of the `*_shapes_tiny` twins: minutes on two CPU cores, from random weights.

`la_det.model_zoo` makes the twins that have no file of their own; one that differs from its recipe is written so:

from ....configs.common.models.o2f_condinst import model
from ....configs.common.shapes_tiny import dataloader, lr_multiplier, make_twin, optimizer, train

make_twin(model)
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.modeling.backbone.resnet import BasicBlock

from .data.shapes import shapes_tiny as dataloader
from .models.backbone import resnet_fpn, torchvision_pixels
from .optim import AdamW as optimizer
from .schedules import one_cycle
from .train import train

# Objects are 10 to 77 pixels wide, in `shapes` up to 153: sizes that COCO recipes state in pixels are multiplied by
# this one factor.
SIZE_FACTOR = 0.25


def half_resnet18(norm="BN"):
    """ResNet-18 with half the channels, a quarter of the work: four times as many epochs in the same time."""
    return L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=32, norm=norm),
        stages=[
            L(ResNet.make_stage)(
                block_class=BasicBlock,
                num_blocks=2,
                stride_per_block=[stride, 1],
                in_channels=in_channels,
                out_channels=out_channels,
                norm=norm,
            )
            for stride, in_channels, out_channels in ((1, 32, 32), (2, 32, 64), (2, 64, 128), (2, 128, 256))
        ],
        out_features=["res3", "res4", "res5"],
        freeze_at=0,
    )


def make_twin(model, num_classes=10):
    """Turns a recipe's model config into its small twin: a slim ResNet-18 and head, sizes times SIZE_FACTOR."""
    model.update(num_classes=num_classes, **torchvision_pixels)
    model.backbone = resnet_fpn(18, channels=64)
    model.backbone.bottom_up = half_resnet18()
    predictors = [predictor for name, predictor in model.head.predictors.items() if name != "_target_"]
    for part in (model.head, *predictors):
        for tower in filter(None, (part.get("cls_tower"), part.get("box_tower"))):
            tower.update(num_convs=2, groups=8)
    for predictor in predictors:
        if predictor.get("max_filtering") and predictor.max_filtering.groups:
            predictor.max_filtering.groups = 8
        if "num_convs" in predictor:  # T-head, whose one tower stands for two
            predictor.update(num_convs=3, groups=8)
    fit_to_shapes(model)


def fit_to_shapes(model):
    """Multiplies the sizes of anchors and size ranges by SIZE_FACTOR, also those that the config leaves at defaults.

    Ignored boxes are background, since the mapper removes them.
    """
    for name, predictor in model.head.predictors.items():
        if name != "_target_" and hasattr(priors := instantiate(predictor.priors), "sizes"):
            predictor.priors.sizes = [SIZE_FACTOR * size for size in priors.sizes]
    for criterion in model.criteria:
        criterion.pop("ignored", None)
        if hasattr(matcher := instantiate(criterion.matcher), "size_ranges"):
            criterion.matcher.size_ranges = [
                [SIZE_FACTOR * bound for bound in bounds] for bounds in matcher.size_ranges
            ]


# Shapes lie in any rotation, so horizontal and vertical flips give images of the same kind.
dataloader.train.mapper.augmentations = [
    L(T.RandomFlip)(horizontal=True, vertical=False),
    L(T.RandomFlip)(horizontal=False, vertical=True),
]
optimizer.lr = 2e-3
lr_multiplier = one_cycle()
train.max_iter = 2700
train.channels_last = True
train.eval_period = 0
train.checkpointer.period = 1000
