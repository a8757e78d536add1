"""The last layers of one branch."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from la_det.modeling.heads.tower import ConvTower, init_head_conv, on_levels
from la_det.structures import AnchorGenerator, BoxCodec, DensePredictions, LTRBCodec, PointGenerator, Priors

BOX_ACTIVATIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "linear": lambda x, stride: x,
    "relu": lambda x, stride: F.relu(x),
    "relu_stride": lambda x, stride: F.relu(x) * stride,
    "exp": lambda x, stride: x.exp(),
}


class BranchPredictor(nn.Module):
    """Classification, box and, optionally, quality maps of one branch.

    Args:
        in_channels: channels of both towers.
        num_classes: K.
        priors: generator of the priors at which the branch predicts.
        codec: what the box channels mean; `LTRBCodec` by default.
        box_activation: what follows the scaled box convolution.
            "linear": x.
            "relu": max(x, 0).
            "relu_stride": max(x, 0) * stride, for distances in pixels.
            "exp": e^x.
        quality_on: the tower of the quality convolution (logit of centerness, IoU or objectness).
            None: there is no quality convolution.
            "cls", "box": the classification tower, the box tower.
        quality_tower: further layers between this tower and the quality convolution; they are initialised already.
        prior_prob: initial probability of every class.
        box_bias, quality_bias: initial biases of the box and the quality convolution.
    """

    def __init__(
        self,
        *,
        in_channels: int = 256,
        num_classes: int = 80,
        priors: PointGenerator | AnchorGenerator,
        codec: BoxCodec | None = None,
        box_activation: Literal["linear", "relu", "relu_stride", "exp"] = "relu_stride",
        quality_on: Literal["cls", "box"] | None = None,
        quality_tower: ConvTower | None = None,
        prior_prob: float = 0.01,
        box_bias: float = 0.0,
        quality_bias: float = 0.0,
    ):
        super().__init__()
        self.priors = priors
        self.codec = codec or LTRBCodec()
        self.box_activation = box_activation
        self.quality_on = quality_on
        a = priors.per_cell
        self.logits = nn.Conv2d(in_channels, a * num_classes, 3, padding=1)
        self.boxes = nn.Conv2d(in_channels, a * 4, 3, padding=1)
        quality_channels = quality_tower.out_channels if quality_tower else in_channels
        self.quality = nn.Conv2d(quality_channels, a, 3, padding=1) if quality_on else None
        self.apply(init_head_conv)
        nn.init.constant_(self.logits.bias, -math.log((1 - prior_prob) / prior_prob))
        nn.init.constant_(self.boxes.bias, box_bias)
        if self.quality is not None:
            nn.init.constant_(self.quality.bias, quality_bias)
        self.quality_tower = quality_tower

    def forward(
        self, cls_features: list[Tensor], box_features: list[Tensor], scales: Sequence[Tensor | None]
    ) -> DensePredictions:
        """Maps of all levels, from the towers' outputs and the level scales."""
        grid_sizes = [x.shape[-2:] for x in cls_features]
        priors = self.priors(grid_sizes, cls_features[0].device)
        maps = {
            "logits": on_levels(self.logits, cls_features),
            "boxes": self.box_maps(box_features, scales, priors),
        }
        if self.quality is not None:
            features = cls_features if self.quality_on == "cls" else box_features
            if self.quality_tower is not None:
                features = on_levels(self.quality_tower, features)
            maps["quality"] = on_levels(self.quality, features)
        # Matching and losses are computed in single precision, also under AMP.
        maps = {name: [x.float() for x in levels] for name, levels in maps.items()}
        return DensePredictions(priors, self.codec, maps)

    def box_maps(self, box_features: list[Tensor], scales: Sequence[Tensor | None], priors: Priors) -> list[Tensor]:
        """L maps [N, 4 A, h, w] float32 of what the codec decodes."""
        activation = BOX_ACTIVATIONS[self.box_activation]
        boxes = []
        for x, scale, stride in zip(box_features, scales, self.priors.strides, strict=True):
            # Single precision from here on: half-precision distances are wrong beyond 2,048 pixels.
            raw = self.boxes(x).float()
            boxes.append(activation(raw if scale is None else raw * scale, stride))
        return boxes
