"""DATE-F + 3DMF: the filter changes the one-to-one branch's class logits."""

from detectron2.config import LazyCall as L

from la_det.modeling.heads import FilteredPredictor
from la_det.modeling.layers import MaxFiltering

from .date_f import model

model.head.predictors.one_to_one.update(
    _target_=FilteredPredictor,
    max_filtering=L(MaxFiltering)(channels="${..in_channels}", groups=32),
    filter_logits=True,
)
