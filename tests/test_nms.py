import pytest
import torch
from torchvision.ops import nms

from la_det.nms import agnostic_nms, class_nms


def scene(seed: int, n: int = 3, s: int = 60):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, s, 2, generator=generator) * 20
    boxes = torch.cat([corner, corner + 5 + torch.rand(n, s, 2, generator=generator) * 10], -1)
    scores, valid = (torch.rand(n, s, generator=generator) for _ in range(2))
    return boxes, scores, torch.randint(0, 3, (n, s), generator=generator), valid > 0.3


@pytest.mark.parametrize("apart", [True, False])
def test_every_image_and_class_by_itself(apart):
    """Boxes that are not valid remove none, however large their scores are."""
    boxes, scores, classes, valid = scene(0)
    valid[1] = False
    scores[~valid] += 1
    expected = torch.zeros_like(valid)
    for n in range(3):
        for k in range(3) if apart else [classes[n]]:
            index = (valid[n] & (classes[n] == k)).nonzero().squeeze(-1)
            expected[n, index[nms(boxes[n, index], scores[n, index], 0.5)]] = True
    survivors = class_nms(boxes, scores, classes, valid, 0.5) if apart else agnostic_nms(boxes, scores, valid, 0.5)
    assert torch.equal(survivors, expected)
    assert 0 < survivors.sum() < valid.sum()


def test_operators_are_well_formed():
    """Schema, shapes and what torch.compile and torch.export need."""
    boxes, scores, classes, valid = scene(1)
    torch.library.opcheck(class_nms, (boxes, scores, classes, valid, 0.5))
    torch.library.opcheck(agnostic_nms, (boxes, scores, valid, 0.5))
