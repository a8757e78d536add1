"""The dynamic mask head against one convolution after another."""

import torch
import torch.nn.functional as F

from la_det.modeling.heads.dynamic_mask_head import mask_logits
from la_det.modeling.layers.aligned_bilinear import aligned_bilinear
from la_det.structures import PointGenerator

H, W = 12, 20


def arguments(n):
    torch.manual_seed(n)
    features = torch.randn(3, 8, H, W)
    grid = PointGenerator(strides=[8])([(H, W)], torch.device("cpu")).points
    image, parameters = torch.randint(3, (n,)), torch.randn(n, 169) * 0.3
    return features, grid, image, parameters, torch.rand(n, 2) * 100, 2.0 ** torch.randint(3, 8, (n,))


def test_same_as_convolutions_of_each_instance():
    features, grid, image, parameters, points, strides = arguments(5)
    actual = mask_logits(features, grid, image, parameters, points, strides)
    for i in range(5):
        rows, columns = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
        x = (points[i, 0] - (columns + 0.5) * 8) / (8 * strides[i])
        y = (points[i, 1] - (rows + 0.5) * 8) / (8 * strides[i])
        maps = torch.cat([x[None], y[None], features[image[i]]]).unsqueeze(0)
        w0, w1, w2, b0, b1, b2 = parameters[i].split([80, 64, 8, 8, 8, 1])
        maps = F.conv2d(maps, w0.view(8, 10, 1, 1), b0).relu()
        maps = F.conv2d(maps, w1.view(8, 8, 1, 1), b1).relu()
        maps = F.conv2d(maps, w2.view(1, 8, 1, 1), b2)
        torch.testing.assert_close(actual[i], aligned_bilinear(maps, 2)[0, 0], rtol=1e-4, atol=1e-5)


def test_no_instances():
    features, *rest = arguments(0)
    assert mask_logits(features, *rest).shape == (0, 2 * H, 2 * W)
