"""A branch with the controller of CondInst (Tian et al., ECCV 2020, section 3.2)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from la_det.modeling.heads.branch_predictor import BranchPredictor
from la_det.modeling.heads.tower import init_head_conv, on_levels
from la_det.structures import DensePredictions


class ControlledPredictor(BranchPredictor):
    """A `BranchPredictor` with the map "controller": the parameters of each location's mask head.

    Args:
        controller_channels: number of these parameters, see `la_det.modeling.heads.dynamic_mask_head`.
        options: of `BranchPredictor`.
    """

    def __init__(self, *, controller_channels: int, **options: Any):
        super().__init__(**options)
        self.controller = nn.Conv2d(self.boxes.in_channels, controller_channels, 3, padding=1)
        init_head_conv(self.controller)

    def forward(
        self, cls_features: list[Tensor], box_features: list[Tensor], scales: Sequence[Tensor | None]
    ) -> DensePredictions:
        """See `BranchPredictor.forward`."""
        predictions = super().forward(cls_features, box_features, scales)
        controller = [x.float() for x in on_levels(self.controller, box_features)]
        return replace(predictions, maps=predictions.maps | {"controller": controller})
