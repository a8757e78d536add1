"""The contracts between heads, matchers, losses and inference.

Letters used everywhere: N images, L levels, R priors per image (over all levels of a branch), K classes,
G ground truths (over the whole batch), P pairs.
"""

from la_det.structures.assignment import Assignment, Negatives, Pairs
from la_det.structures.box_codec import BoxCodec, CornerCodec, DeltaCodec, LTRBCodec
from la_det.structures.counting import count
from la_det.structures.masks import Masks
from la_det.structures.no_wait import constant, move, on_device, true_indices
from la_det.structures.predictions import DensePredictions
from la_det.structures.priors import AnchorGenerator, PointGenerator, Priors
from la_det.structures.queries import Queries
from la_det.structures.score import Score
from la_det.structures.targets import Targets

__all__ = [
    "AnchorGenerator",
    "Assignment",
    "BoxCodec",
    "CornerCodec",
    "DeltaCodec",
    "DensePredictions",
    "LTRBCodec",
    "Masks",
    "Negatives",
    "Pairs",
    "PointGenerator",
    "Priors",
    "Queries",
    "Score",
    "Targets",
    "constant",
    "count",
    "move",
    "on_device",
    "true_indices",
]
