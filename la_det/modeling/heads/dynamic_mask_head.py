"""CondInst's dynamic mask head: three 1x1 convolutions with weights of each instance (ECCV 2020, section 3.2).

All instances run at once, as batched matrix products.
"""

import torch
from torch import Tensor

from la_det.modeling.layers.aligned_bilinear import aligned_bilinear

# Coordinates relative to an instance's location are in units of this many strides of its level.
COORDINATE_STRIDES = 8


def mask_logits(
    features: Tensor, grid: Tensor, image: Tensor, parameters: Tensor, points: Tensor, strides: Tensor
) -> Tensor:
    """Mask logits of n instances, at twice the resolution of the features: [n, 2 h, 2 w].

    Args:
        features: mask features [N, C, h, w].
        grid: points [h w, 2] of the features' cells, (x, y) pixels.
        image: [n] int64, each instance's image.
        parameters: [n, (C + 2) C + C C + C + 2 C + 1] of each instance's mask head.
        points: [n, 2] each instance's location, pixels.
        strides: [n] stride of each location's level, pixels.
    """
    h, w = features.shape[-2:]
    x = mask_head_input(features.flatten(2), grid, image, points, strides)
    (w0, b0), (w1, b1), (w2, b2) = split_parameters(parameters, features.shape[1])
    x = torch.baddbmm(b0, w0, x).relu_()
    x = torch.baddbmm(b1, w1, x).relu_()
    x = torch.baddbmm(b2, w2, x)
    return aligned_bilinear(x.view(-1, 1, h, w), 2).squeeze(1)


def mask_head_input(features: Tensor, grid: Tensor, image: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Relative coordinates and mask features [n, 2 + C, h w], from features [N, C, h w]; see `mask_logits`."""
    coordinates = (points.unsqueeze(-1) - grid.T) / (COORDINATE_STRIDES * strides)[:, None, None]
    return torch.cat([coordinates, features.index_select(0, image)], 1)


def split_parameters(parameters: Tensor, channels: int) -> list[tuple[Tensor, Tensor]]:
    """Weights [n, out, in] and biases [n, out, 1] of each layer; `parameters` has all weights, then all biases."""
    shapes = [(channels, channels + 2), (channels, channels), (1, channels)]
    outs = [out for out, _ in shapes]
    *weights, biases = parameters.split([out * into for out, into in shapes] + [sum(outs)], dim=1)
    return [
        (weight.unflatten(1, shape), bias.unsqueeze(-1))
        for weight, shape, bias in zip(weights, shapes, biases.split(outs, dim=1), strict=True)
    ]
