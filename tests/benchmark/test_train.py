import pytest
import torch.nn.functional as F
from detectron2.config import instantiate
from torch import nn

from la_det import model_zoo
from la_det.benchmark.train import giga_flops


def test_operations_for_maps_of_images_are_counted():
    """One more 3x3 convolution of 128 channels in CondInst's mask branch, at stride 8 of 64 pixels."""
    config = model_zoo.get_config("O2F/o2f_condinst_r18_fpn_shapes_tiny").model
    flops = []
    for num_convs in (4, 5):
        config.head.image_branches.mask_features.num_convs = num_convs
        flops.append(1e9 * giga_flops(instantiate(config).inference_only(), 64, 64)[1])
    # The norm after it has a few operations as well.
    assert flops[1] - flops[0] == pytest.approx(128 * 128 * 9 * 8 * 8, rel=0.01)


def test_deformable_convolutions_count_as_convolutions():
    """One has, beside the plain one, the convolution that predicts 27 numbers: per location of all five levels."""
    config = model_zoo.get_config("DW/dw_r18_fpn_shapes_tiny").model
    flops = []
    for last_dcn in (None, "zeros"):
        config.head.cls_tower.last_dcn = last_dcn
        flops.append(1e9 * giga_flops(instantiate(config), 128, 128)[1])
    locations = sum((128 // stride) ** 2 for stride in (8, 16, 32, 64, 128))
    assert flops[1] - flops[0] == pytest.approx(27 * config.backbone.out_channels * 9 * locations, rel=1e-6)


class Attend(nn.Module):
    """Every pixel to all others."""

    def forward(self, images):
        x = images.flatten(2).transpose(1, 2)
        return {"p3": F.scaled_dot_product_attention(x, x, x)}


class AsTuple(nn.Module):
    def forward(self, features):
        return tuple(features)


def test_fused_attention_is_counted():
    model = nn.Module()
    model.backbone, model.head, model.in_features = Attend(), AsTuple(), ("p3",)
    assert 1e9 * giga_flops(model, 4, 5)[0] == pytest.approx(2 * 20 * 20 * 3)
