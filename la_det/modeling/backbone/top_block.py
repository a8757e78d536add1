"""Levels P6 and P7 of the feature pyramid, where Detectron2's block differs from an official implementation."""

from detectron2.modeling.backbone.fpn import LastLevelP6P7
from torch import Tensor


class LastLevelP6P7WithoutReLU(LastLevelP6P7):
    """P6 and P7 by two convolutions; P7 reads P6 instead of ReLU(P6), as in MMDetection's ATSS."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """[P6, P7] from P5 or C5."""
        p6 = self.p6(x)
        return [p6, self.p7(p6)]
