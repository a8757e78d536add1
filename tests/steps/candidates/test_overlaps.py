from unittest.mock import patch

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from la_det.geometry import aligned_iou
from la_det.references.scene import KINDS, make_targets, random_boxes
from la_det.steps.candidates import largest_iou, meeting_runs, overlapping_pairs, pairs_of_iou
from la_det.structures import chunks

# Whole numbers, so that boxes often touch.
COORDINATE = st.integers(0, 40).map(float)


@given(
    st.lists(st.tuples(COORDINATE, COORDINATE, COORDINATE, COORDINATE), max_size=6),
    st.integers(1, 70),
    st.integers(0, 2**32 - 1),
    st.integers(0, 6),
)
@settings(max_examples=150, deadline=None)
def test_same_as_comparing_all(gts, num_boxes, seed, start):
    generator = torch.Generator().manual_seed(seed)
    gts = torch.tensor(gts).reshape(-1, 4)
    gts = torch.cat([torch.minimum(gts[:, :2], gts[:, 2:]), torch.maximum(gts[:, :2], gts[:, 2:])], 1)
    half = len(gts) // 2
    targets = make_targets([gts[:half], gts[half:]])
    corners = torch.randint(0, 40, (2, num_boxes, 2), generator=generator).float()
    sides = torch.randint(0, 12, (2, num_boxes, 2), generator=generator).float()
    boxes = torch.cat([corners, corners + sides], -1)

    pairs = overlapping_pairs(boxes, targets, slice(start, start + 3))
    expected = []
    for g, (gt, i) in enumerate(zip(targets.boxes, targets.image, strict=True)):
        if start <= g < start + 3:
            meets = (boxes[i, :, :2] < gt[2:]).all(-1) & (boxes[i, :, 2:] > gt[:2]).all(-1)
            expected += [(int(i), int(r), g) for r in meets.nonzero()]
    actual = zip(pairs.image.tolist(), pairs.prior.tolist(), pairs.gt.tolist(), strict=True)
    assert list(actual) == expected


@given(st.lists(st.sampled_from(KINDS), max_size=8), st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_all_pairs_of_an_iou(kinds, seed, whole_runs):
    generator = torch.Generator().manual_seed(seed)
    targets = make_targets([random_boxes(generator, kinds, 64, 96), random_boxes(generator, kinds[:3], 64, 96)])
    boxes = torch.stack([random_boxes(generator, list(KINDS) * 6, 64, 96) for _ in range(2)])
    boxes[:, :20] = boxes[:, :20] * 0.1 + (targets.boxes[:1] * 0.9 if len(targets) else 0)
    min_iou = torch.rand(len(targets), generator=generator) * torch.randint(2, (len(targets),), generator=generator)
    with patch.object(chunks, "in_chunks", lambda device: not whole_runs):
        pairs, mask = pairs_of_iou(boxes, targets, min_iou)
    assert (mask is None) != whole_runs
    assert torch.equal(pairs.image, targets.image[pairs.gt])
    keys = pairs.gt * boxes.shape[1] + pairs.prior
    if mask is not None:
        keys = keys[mask]
    assert (keys.diff() > 0).all()
    iou = aligned_iou(boxes[targets.image], targets.boxes.unsqueeze(1))
    wanted = ((iou > 0) & (iou >= min_iou.unsqueeze(1))).flatten().nonzero().squeeze(1)
    assert torch.isin(wanted, keys).all()
    has_area = targets.areas[keys.div(boxes.shape[1], rounding_mode="floor")] > 0
    assert (iou.flatten()[keys][has_area] > 0).all()


def test_a_box_of_nan_overlaps_everything():
    boxes = random_boxes(torch.Generator().manual_seed(0), list(KINDS) * 5, 64, 64).unsqueeze(0)
    boxes[0, 17] = torch.nan
    pairs = overlapping_pairs(boxes, make_targets([[[500, 500, 600, 600]]]), slice(0, 1))
    assert pairs.prior.tolist() == [17]


@given(st.integers(1, 70), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_largest_iou_of_each_box(num_boxes, seed):
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.stack([random_boxes(generator, ["object"] * num_boxes, 64, 64) for _ in range(3)])
    targets = make_targets([random_boxes(generator, list(KINDS), 64, 64), [], boxes[2, :1]])
    runs = meeting_runs(boxes, targets)
    largest = largest_iou(boxes, targets, runs.flatten().nonzero().squeeze(1))[:, :num_boxes]
    for i in range(3):
        iou = box_iou(boxes[i], targets.boxes[targets.image == i]).nan_to_num(0)
        expected = iou.amax(1) if iou.numel() else torch.zeros(num_boxes)
        torch.testing.assert_close(largest[i], expected)
