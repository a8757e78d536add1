"""CondInst's branches with one map per image."""

import math

import pytest
import torch
from torch import nn

from la_det.modeling.heads import MaskBranch, SemanticBranch
from la_det.modeling.layers.aligned_bilinear import aligned_bilinear


def pyramid(channels=16, size=(16, 24), levels=5):
    return [torch.randn(2, channels, -(-size[0] // 2**i), -(-size[1] // 2**i)) for i in range(levels)]


def test_finest_levels_are_added_at_the_finest_one():
    branch = MaskBranch(in_channels=16, channels=8, num_convs=2, out_channels=4).eval()
    features = pyramid()
    joined = sum(aligned_bilinear(branch.refine[i](features[i]), 2**i) for i in range(3))
    assert torch.equal(branch(features), branch.tower(joined))
    assert branch(features).shape == (2, 4, 16, 24)
    unchanged = branch(features)
    features[3] += 1  # the other levels are not read
    assert torch.equal(branch(features), unchanged)


@pytest.mark.parametrize("branch", [MaskBranch(in_channels=16), SemanticBranch(in_channels=16, num_classes=80)])
def test_initial_weights(branch):
    convs = [m for m in branch.modules() if isinstance(m, nn.Conv2d)]
    assert all(0.009 < conv.weight.std() < 0.011 for conv in convs)
    assert [conv.bias is None for conv in convs] == [True] * (len(convs) - 1) + [False]
    norms = [m for m in branch.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == len(convs) - 1
    assert all(norm.eps == 1e-5 and norm.momentum == 0.1 for norm in norms)


def test_semantic_logits_start_at_the_prior():
    branch = SemanticBranch(in_channels=16, channels=8, num_classes=3)
    assert branch(pyramid()).shape == (2, 3, 16, 24)
    assert branch[-1].bias.tolist() == pytest.approx([-math.log(99)] * 3)
