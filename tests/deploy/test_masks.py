import pytest
import torch
from detectron2.structures import Instances

from la_det.deploy.masks import pasted
from la_det.modeling.mask_inference import paste_masks


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("size", [(61, 90), (64, 96), (150, 31)])
def test_pastes_as_the_model(stride, size):
    """Bilinear resizing to the network's input, and to an output that is smaller or larger."""
    image_size = (60, 90)
    cells = [-(-side // 32) * 32 // stride for side in image_size]
    probabilities = torch.rand(3, *cells, generator=torch.Generator().manual_seed(0))
    instances = Instances(size, mask_probabilities=probabilities)
    paste_masks(instances, image_size, stride)
    found = pasted(probabilities.numpy(), stride, image_size, size)
    assert found.shape == (3, *size) and 0.2 < found.mean() < 0.8
    assert (found != instances.pred_masks.numpy()).mean() < 1e-3  # probabilities of nearly 0.5
