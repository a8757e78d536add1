"""OneNet on RetinaNet's head: 9 anchors per cell, around the cells' corners, and towers without normalisation."""

from detectron2.config import LazyCall as L

from la_det.structures import AnchorGenerator, DeltaCodec

from .onenet_fcos import model

for _tower in (model.head.cls_tower, model.head.box_tower):
    _tower.norm = False
model.head.level_scales = False
model.head.predictors.main.update(
    priors=L(AnchorGenerator)(
        sizes=[4 * 2 ** (octave / 3) for octave in range(3)], ratios=[0.5, 1.0, 2.0], sizes_first=True, offset=0.0
    ),
    codec=L(DeltaCodec)(),
    box_activation="linear",
)
