import pytest
from detectron2.config import instantiate

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
