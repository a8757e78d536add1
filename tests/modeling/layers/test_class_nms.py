import torch
from torchvision.ops import nms

from la_det.modeling.layers import class_nms


def scene(generator, n: int = 3, s: int = 60):
    corner = torch.rand(n, s, 2, generator=generator) * 20
    boxes = torch.cat([corner, corner + 5 + torch.rand(n, s, 2, generator=generator) * 10], -1)
    scores = torch.rand(n, s, generator=generator)
    classes = torch.randint(0, 3, (n, s), generator=generator)
    return boxes, scores, classes, torch.rand(n, s, generator=generator) > 0.3


def test_every_image_and_class_by_itself():
    boxes, scores, classes, valid = scene(torch.Generator().manual_seed(0))
    valid[1] = False
    survivors = class_nms(boxes, scores, classes, valid, 0.5)
    expected = torch.zeros_like(valid)
    for n in range(3):
        for k in range(3):
            index = (valid[n] & (classes[n] == k)).nonzero().squeeze(-1)
            expected[n, index[nms(boxes[n, index], scores[n, index], 0.5)]] = True
    assert torch.equal(survivors, expected)
    assert 0 < survivors.sum() < valid.sum()


def test_operator_is_well_formed():
    """Schema, shapes and what torch.compile and torch.export need."""
    torch.library.opcheck(class_nms, (*scene(torch.Generator().manual_seed(1)), 0.5))
