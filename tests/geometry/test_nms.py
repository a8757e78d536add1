import torch
from torchvision.ops import nms

from la_det.geometry import agnostic_nms


def scene(seed: int, n: int = 3, s: int = 60):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, s, 2, generator=generator) * 20
    boxes = torch.cat([corner, corner + 5 + torch.rand(n, s, 2, generator=generator) * 10], -1)
    scores, valid = (torch.rand(n, s, generator=generator) for _ in range(2))
    return boxes, scores, valid > 0.3


def test_every_image_by_itself():
    """Boxes that are not valid remove none, however large their scores are."""
    boxes, scores, valid = scene(0)
    valid[1] = False
    scores[~valid] += 1
    expected = torch.zeros_like(valid)
    for n in range(3):
        index = valid[n].nonzero().squeeze(1)
        expected[n, index[nms(boxes[n, index], scores[n, index], 0.5)]] = True
    survivors = agnostic_nms(boxes, scores, valid, 0.5)
    assert torch.equal(survivors, expected)
    assert 0 < survivors.sum() < valid.sum()


def test_operator_is_well_formed():
    """Schema, shapes and what torch.compile and torch.export need."""
    torch.library.opcheck(agnostic_nms, (*scene(1), 0.5))
