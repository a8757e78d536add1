"""TOOD, anchor-based: coarse boxes are deltas of ATSS's anchors."""

from detectron2.config import LazyCall as L

from la_det.structures import DeltaCodec

from .tood import model

model.head.predictors.main.update(
    coarse_codec=L(DeltaCodec)(weights=[10.0, 10.0, 5.0, 5.0], clamp_both=True),
    box_activation="linear",
)
