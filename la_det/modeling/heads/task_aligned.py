"""TOOD's head: one tower for both tasks, which layer attention takes apart (Feng et al., ICCV 2021, section 3.1)."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from la_det.modeling.heads.boundary_refinement import sample
from la_det.modeling.heads.tower import ConvTower, init_head_conv, on_levels
from la_det.structures import AnchorGenerator, BoxCodec, CornerCodec, DensePredictions, PointGenerator, Priors


class TaskDecomposition(nn.Module):
    """One task's features from all layers of the tower, each weighted by an attention that sees the whole map.

    Args:
        channels: C of each layer.
        num_layers: n.
        groups: of the normalisation.
    """

    def __init__(self, *, channels: int, num_layers: int, groups: int):
        super().__init__()
        self.attention = nn.Sequential(
            nn.Conv2d(num_layers * channels, channels // 8, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 8, num_layers, 1),
            nn.Sigmoid(),
        )
        self.reduction = nn.Conv2d(num_layers * channels, channels, 1, bias=False)
        self.norm = nn.GroupNorm(groups, channels)
        init_head_conv(self.reduction)
        self.attention.apply(_init_small)

    def forward(self, stacked: Tensor, mean: Tensor) -> Tensor:
        """Features [N, C, h, w] from the tower's layers [N, n C, h, w] and their mean [N, n C, 1, 1]."""
        weights = self.attention(mean).flatten(1)  # [N, n]
        # A layer's weight scales the columns that read it: cheaper than scaling the layer, and the same.
        matrix = self.reduction.weight.unflatten(1, (weights.shape[1], -1)).flatten(2)  # [C, n, C]
        matrix = (matrix * weights[:, None, :, None]).flatten(2)  # [N, C, n C]
        features = torch.bmm(matrix.to(stacked.dtype), stacked.flatten(2)).unflatten(2, stacked.shape[-2:])
        return F.relu(self.norm(features))


class TaskAlignedPredictor(nn.Module):
    """The T-head: a branch with a tower of its own, for a `DenseHead` without towers.

    Its maps are "logits", "boxes" (corners in strides) and "quality", the logit of the alignment that a gated `Score`
    joins with the classes'. Boxes are predicted twice: from coarse ones each side is re-read at a learnt displacement.
    Nothing is detached, and there is no loss on coarse boxes.

    Args:
        in_channels: C of the feature pyramid.
        num_classes: K.
        priors: where the branch predicts, one per cell.
        coarse_codec: what the channels of the coarse boxes mean.
        box_activation: of these channels, before the level's scale: "exp" (TOOD's distances) or "linear" (its deltas).
        num_convs: n, of the tower.
        groups: of all normalisations.
        num_dcn: how many convolutions, the tower's first, are deformable.
        repair: take the coarse box where sides have changed places, as MMDetection does since 2022.
        prior_prob: initial probability of every class.
    """

    def __init__(
        self,
        *,
        in_channels: int = 256,
        num_classes: int = 80,
        priors: PointGenerator | AnchorGenerator,
        coarse_codec: BoxCodec,
        box_activation: Literal["exp", "linear"] = "exp",
        num_convs: int = 6,
        groups: int = 32,
        num_dcn: int = 0,
        repair: bool = False,
        prior_prob: float = 0.01,
    ):
        super().__init__()
        self.priors = priors
        self.coarse_codec = coarse_codec
        self.codec = CornerCodec()
        self.box_activation = box_activation
        self.repair = repair
        self.tower = ConvTower(
            in_channels=in_channels, num_convs=num_convs, groups=groups, bias=False, first_dcn=num_dcn
        )
        layers = dict(channels=in_channels, num_layers=num_convs, groups=groups)
        self.cls_decomposition = TaskDecomposition(**layers)
        self.box_decomposition = TaskDecomposition(**layers)
        self.logits = nn.Conv2d(in_channels, num_classes, 3, padding=1)
        self.boxes = nn.Conv2d(in_channels, 4, 3, padding=1)
        self.quality = _bottleneck(num_convs * in_channels, in_channels // 4, 1)
        self.offset = _bottleneck(num_convs * in_channels, in_channels // 4, 8)
        for module in (self.logits, self.boxes, *self.quality):
            init_head_conv(module)
        self.offset.apply(_init_small)
        for conv in (self.logits, self.quality[-1]):
            nn.init.constant_(conv.bias, -math.log((1 - prior_prob) / prior_prob))

    def forward(
        self, cls_features: list[Tensor], box_features: list[Tensor], scales: Sequence[Tensor]
    ) -> DensePredictions:
        """Maps of all levels from those of the feature pyramid, `cls_features`, and the level scales."""
        priors = self.priors([x.shape[-2:] for x in cls_features], cls_features[0].device)
        stacked = on_levels(self._stacked, cls_features)
        means = [x.mean((2, 3), keepdim=True) for x in stacked]
        cls_features = list(map(self.cls_decomposition, stacked, means))
        box_features = list(map(self.box_decomposition, stacked, means))
        # Matching, losses, and all that computes with positions are in single precision, also under AMP.
        raw = [self.boxes(x).float() for x in box_features]
        coarse = self.coarse_boxes(raw, scales, priors)
        maps = {
            "logits": [self.logits(x).float() for x in cls_features],
            "boxes": [self.refine(b, self.offset(x).float()) for b, x in zip(coarse, stacked, strict=True)],
            "quality": [self.quality(x).float() for x in stacked],
        }
        return DensePredictions(priors, self.codec, maps)

    def _stacked(self, x: Tensor) -> Tensor:
        """The outputs [N, n C, h, w] of all layers of the tower."""
        layers = []
        for layer in self.tower:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                layers.append(x)
        return torch.cat(layers, 1)

    def coarse_boxes(self, raw: list[Tensor], scales: Sequence[Tensor], priors: Priors) -> list[Tensor]:
        """L maps [N, 4, h, w] of corners in strides, from those of box channels."""
        if self.box_activation == "exp":
            raw = [x.exp() for x in raw]
        joined = torch.cat([(x * scale).flatten(2) for x, scale in zip(raw, scales, strict=True)], 2)
        boxes = self.codec.encode(self.coarse_codec.decode(joined.transpose(1, 2), priors, None), priors, None)
        levels = boxes.transpose(1, 2).split([h * w for h, w in priors.grid_sizes], 2)
        return [x.unflatten(2, size) for x, size in zip(levels, priors.grid_sizes, strict=True)]

    def refine(self, coarse: Tensor, offset: Tensor) -> Tensor:
        """Boxes [N, 4, h, w] from coarse ones and the displacements [N, 8, h, w], (dy, dx) of each side in cells."""
        boxes = sample(coarse, offset)
        if not self.repair:
            return boxes
        return torch.where((boxes[:, :2] > boxes[:, 2:]).any(1, keepdim=True), coarse, boxes)


def _bottleneck(in_channels: int, channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
    )


def _init_small(module: nn.Module) -> None:
    """N(0, 0.001), bias 0: attention starts equal for all layers, and sides are read where they are."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.001)
        nn.init.zeros_(module.bias)
