"""A branch with the filter of 3DMF (Wang et al., CVPR 2021, section 3.3)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from la_det.modeling.heads.branch_predictor import BranchPredictor
from la_det.modeling.heads.tower import init_head_conv, on_levels
from la_det.modeling.layers import MaxFiltering, filtered_logits
from la_det.structures import DensePredictions


class FilteredPredictor(BranchPredictor):
    """A `BranchPredictor` with the map "filter", logits of a filter that suppresses duplicates.

    Args:
        max_filtering: 3DMF between the box tower and the convolution of the filter.
        filter_logits: where the filter acts.
            False: in a gated `Score`.
            True: in the class logits (DATE).
        options: of `BranchPredictor`.
    """

    def __init__(self, *, max_filtering: MaxFiltering, filter_logits: bool = False, **options: Any):
        super().__init__(**options)
        self.filter = nn.Conv2d(self.boxes.in_channels, self.priors.per_cell, 3, padding=1)
        init_head_conv(self.filter)
        self.max_filtering = max_filtering
        self.filter_logits = filter_logits

    def forward(
        self, cls_features: list[Tensor], box_features: list[Tensor], scales: Sequence[Tensor | None]
    ) -> DensePredictions:
        """See `BranchPredictor.forward`."""
        predictions = super().forward(cls_features, box_features, scales)
        filter_maps = [x.float() for x in on_levels(self.filter, self.max_filtering(box_features))]
        maps = predictions.maps | {"filter": filter_maps}
        if self.filter_logits:
            maps["logits"] = list(map(filtered_logits, maps["logits"], filter_maps))
        return replace(predictions, maps=maps)
