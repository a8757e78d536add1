"""One module per label-assignment scheme.

A matcher is called as `matcher(predictions, targets, *, score, progress)` and returns an `Assignment`:

* `predictions`: `DensePredictions` of the branch, float32, detached.
* `targets`: `Targets` of the batch.
* `score`: the criterion's `Score`; purely geometric schemes do not use it.
* `progress`: share of the training that is done, 0..1; only schemes with a schedule use it.

Matchers run for the whole batch at once, in three steps: candidates (which (prior, ground truth) pairs can be positive
at all), score (a number for each pair), select (pairs into positives and weights). They run without gradient, except
those that are trained themselves: they have the attribute `differentiable`, and get predictions that are not detached.
"""

from typing import Protocol

from la_det.matchers.atss import ATSS
from la_det.matchers.autoassign import AutoAssign
from la_det.matchers.ddq import DDQ
from la_det.matchers.dw import DW
from la_det.matchers.dynamic_atss import DynamicATSS
from la_det.matchers.fcos import FCOS
from la_det.matchers.hungarian import Hungarian
from la_det.matchers.lla import LLA
from la_det.matchers.max_iou import MaxIoU
from la_det.matchers.o2f import O2F
from la_det.matchers.one_to_one import ForegroundLoss, OneToOneAnchor, OneToOneCenter
from la_det.matchers.onenet import OneNet
from la_det.matchers.ota import OTA
from la_det.matchers.paa import PAA
from la_det.matchers.poto import POTO
from la_det.matchers.poto_aux import POTOAux
from la_det.matchers.simota import SimOTA
from la_det.matchers.switch import Switch, matcher_at
from la_det.matchers.tal import TAL
from la_det.matchers.tood import TOOD
from la_det.matchers.topk_iou import TopKIoU
from la_det.structures import Assignment, DensePredictions, Score, Targets

__all__ = [
    "ATSS",
    "AutoAssign",
    "DDQ",
    "DW",
    "DynamicATSS",
    "FCOS",
    "ForegroundLoss",
    "Hungarian",
    "LLA",
    "MaxIoU",
    "O2F",
    "OTA",
    "OneNet",
    "OneToOneAnchor",
    "OneToOneCenter",
    "PAA",
    "POTO",
    "POTOAux",
    "SimOTA",
    "Switch",
    "TAL",
    "TOOD",
    "TopKIoU",
    "Matcher",
    "matcher_at",
]


class Matcher(Protocol):
    """The call of every matcher: see the module's docstring."""

    def __call__(
        self, predictions: DensePredictions, targets: Targets, *, score: Score, progress: float
    ) -> Assignment: ...
