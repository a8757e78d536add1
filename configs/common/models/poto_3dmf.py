"""POTO + 3DMF: the class probability is multiplied by the probability of a filter that suppresses duplicates."""

from detectron2.config import LazyCall as L

from la_det.modeling.heads import FilteredPredictor
from la_det.modeling.layers import MaxFiltering
from la_det.structures import Score

from .poto import model

model.head.predictors.main.update(
    _target_=FilteredPredictor, max_filtering=L(MaxFiltering)(channels="${..in_channels}", groups=32)
)
model.criteria[0].score = L(Score)(gate="filter")
model.inference.score = L(Score)(gate="filter")
