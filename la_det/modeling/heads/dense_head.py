"""The head of a dense detector: shared towers, and a predictor for each branch."""

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor, nn

from la_det.modeling.heads.branch_predictor import BranchPredictor
from la_det.modeling.heads.tower import on_levels
from la_det.structures import DensePredictions


class DenseHead(nn.Module):
    """Two towers over the feature pyramid, and one predictor per branch on top of them.

    A plain detector has one branch, "main". Dual assignment has several branches, on the same towers and level scales.

    Args:
        cls_tower, box_tower: towers that are applied to every level; None if the predictors have their own.
        predictors: name of the branch -> its last layers.
        image_branches: name of a map of `DensePredictions.image_maps` -> module that makes it from the pyramid. The
            predictions of all branches have these maps.
        num_levels: L.
        level_scales: whether the box outputs have one learnt factor per level, 1 at first.
    """

    def __init__(
        self,
        *,
        cls_tower: nn.Module | None,
        box_tower: nn.Module | None,
        predictors: dict[str, BranchPredictor],
        image_branches: dict[str, nn.Module] | None = None,
        num_levels: int = 5,
        level_scales: bool = True,
    ):
        super().__init__()
        self.cls_tower = cls_tower
        self.box_tower = box_tower
        self.predictors = nn.ModuleDict(predictors)
        self.image_branches = nn.ModuleDict(image_branches or {})
        self.num_levels = num_levels
        self.scales = nn.Parameter(torch.ones(num_levels)) if level_scales else None

    def forward(self, features: list[Tensor], branches: Collection[str] | None = None) -> dict[str, DensePredictions]:
        """Predictions of each branch.

        Args:
            features: L maps [N, C, h, w], finest first.
            branches: names of the branches and image branches that are wanted; all by default.
        """
        if len(features) != self.num_levels:
            raise ValueError(f"the head is built for {self.num_levels} levels, the backbone gave {len(features)}")
        cls_features = features if self.cls_tower is None else on_levels(self.cls_tower, features)
        box_features = features if self.box_tower is None else on_levels(self.box_tower, features)
        scales = [None] * self.num_levels if self.scales is None else self.scales.unbind()
        image_maps = {
            name: branch(features).float()
            for name, branch in self.image_branches.items()
            if branches is None or name in branches
        }
        return {
            name: replace(predictor(cls_features, box_features, scales), image_maps=image_maps)
            for name, predictor in self.predictors.items()
            if branches is None or name in branches
        }
