"""A branch that shares no layer with others."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from la_det.modeling.heads.branch_predictor import BranchPredictor
from la_det.modeling.heads.tower import ConvTower, on_levels
from la_det.structures import DensePredictions


class SeparatePredictor(BranchPredictor):
    """A `BranchPredictor` with towers and level scales of its own, for a `DenseHead` without towers.

    Args:
        cls_tower, box_tower: applied to every level.
        num_levels: L.
        detached: the branch trains nothing below its towers, like YOLOv10's one-to-one branch.
        options: of `BranchPredictor`.
    """

    def __init__(
        self, *, cls_tower: ConvTower, box_tower: ConvTower, num_levels: int = 5, detached: bool = False, **options: Any
    ):
        super().__init__(**options)
        self.cls_tower = cls_tower
        self.box_tower = box_tower
        self.scales = nn.Parameter(torch.ones(num_levels))
        self.detached = detached

    def forward(
        self, cls_features: list[Tensor], box_features: list[Tensor], scales: Sequence[Tensor | None]
    ) -> DensePredictions:
        """Maps of all levels from those of the feature pyramid, `cls_features`; the other arguments are not used."""
        features = [x.detach() for x in cls_features] if self.detached else cls_features
        return super().forward(
            on_levels(self.cls_tower, features), on_levels(self.box_tower, features), self.scales.unbind()
        )
