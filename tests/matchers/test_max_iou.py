"""RetinaNet's rule against the dense version in la_det/references/atss.py, and its rectangles of anchors."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from la_det.matchers import MaxIoU
from la_det.matchers.max_iou import grid_extents
from la_det.references import atss as reference
from la_det.references.scene import dense_matches, make_targets
from la_det.steps.candidates import overlapping_anchors
from la_det.structures import AnchorGenerator, DeltaCodec, DensePredictions, Score
from tests.matchers.anchor_scenes import make_scene, scenes

ONE = AnchorGenerator(sizes=(8.0,), box_offset=1)
# RetinaNet's nine, at the corners of their cells.
NINE = AnchorGenerator(sizes=[4 * 2 ** (i / 3) for i in range(3)], ratios=[0.5, 1.0, 2.0], offset=0.0)
GENERATORS = {"one": ONE, "nine": NINE}


def dense(assignment, scene) -> torch.Tensor:
    """[N, R] ground truth within the image, -1 background, -2 dropped."""
    matched = scene.within_image(dense_matches(assignment, scene.targets.num_images, len(scene.predictions.priors)))
    matched[assignment.dropped] = -2
    return matched


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(sorted(GENERATORS)), st.booleans())
def test_same_as_the_dense_version(data, anchors, reassign_best):
    scene = data.draw(scenes(GENERATORS[anchors]))
    matched = dense(scene.assign(MaxIoU(reassign_best=reassign_best)), scene)
    for i, actual in enumerate(matched):
        gts = scene.boxes(i)
        if len(gts) == 0:
            assert (actual == -1).all()
            continue
        iou = box_iou(scene.predictions.priors.boxes, gts).nan_to_num(0)
        assert torch.equal(actual, reference.max_iou(iou, 0.5, 0.4, reassign_best))


@settings(max_examples=30, deadline=None)
@given(st.data(), st.sampled_from([32, 64]))
def test_only_cells_of_the_padded_image_take_part(data, pad_to):
    """Images smaller than the batch: DATE's validity rule."""
    scene = data.draw(scenes(NINE))
    n = scene.targets.num_images
    sizes = tuple((data.draw(st.integers(1, 160)), data.draw(st.integers(1, 224))) for _ in range(n))
    scene = replace(scene, targets=replace(scene.targets, image_sizes=sizes))
    priors = scene.predictions.priors
    matched = dense(scene.assign(MaxIoU(pad_to=pad_to)), scene)
    for i, actual in enumerate(matched):
        padded_h, padded_w = (-(-side // pad_to) * pad_to for side in sizes[i])
        # With offset 0 a point is its cell's corner: the cell begins inside exactly if the point is inside.
        valid = (priors.points[:, 0] < padded_w) & (priors.points[:, 1] < padded_h)
        gts = scene.boxes(i)
        if len(gts) == 0:
            assert torch.equal(actual, torch.where(valid, -1, -2))
            continue
        iou = box_iou(priors.boxes, gts).nan_to_num(0)
        assert torch.equal(actual, reference.max_iou(iou, 0.5, 0.4, True, valid))


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(sorted(GENERATORS)), st.sampled_from([0.0, 0.01, 0.3, 0.7, 1.0]))
def test_rectangles_hold_every_anchor_that_reaches_the_iou(data, anchors, min_iou):
    scene = data.draw(scenes(GENERATORS[anchors]))
    priors, targets = scene.predictions.priors, scene.targets
    bound = torch.full((len(targets),), min_iou)
    pairs = overlapping_anchors(priors, targets, bound, grid_extents(priors, targets, None))
    listed = torch.zeros(len(priors), len(targets), dtype=torch.bool)
    listed[pairs.prior, pairs.gt] = True
    assert int(listed.sum()) == len(pairs)  # none twice
    iou = box_iou(priors.boxes, targets.boxes).nan_to_num(0)
    assert listed[(iou > 0) & (iou >= min_iou)].all()
    assert (pairs.gt.diff() >= 0).all()


def test_rectangles_are_small():
    """At IoU 0.4, an object of 100 pixels can be matched by few of the 9 x 22,000 anchors."""
    scene = make_scene([[[300.0, 300.0, 400.0, 400.0]]], (800, 1344), NINE)
    priors, targets = scene.predictions.priors, scene.targets
    pairs = overlapping_anchors(priors, targets, torch.tensor([0.4]), grid_extents(priors, targets, None))
    iou = box_iou(priors.boxes, targets.boxes)
    assert 0 < int((iou >= 0.4).sum()) <= len(pairs) < 1000


def test_positives_with_their_centre_outside_are_dropped():
    """A narrow ground truth is best met by anchors whose centres lie beside it."""
    scene = make_scene([[[18.0, 0.0, 19.5, 60.0]]], (64, 64), ONE)
    anywhere = scene.assign(MaxIoU(reassign_best=False))
    inside = scene.assign(MaxIoU(reassign_best=False, margin=0.01))
    assert len(anywhere.pairs) > 0 and len(inside.pairs) == 0
    assert len(inside.dropped[0]) == len(anywhere.dropped[0]) + len(anywhere.pairs)
    # Another one holds a centre, half a pixel from its sides in the pixel-inclusive convention.
    scene = make_scene([[[19.5, 0.0, 21.5, 60.0]]], (64, 64), ONE)
    pairs = scene.assign(MaxIoU(reassign_best=False, margin=0.01)).pairs
    assert scene.predictions.priors.points[pairs.prior].tolist() == [[20.5, 28.5]]
    # Half a pixel to the right, it would hold that centre but for the convention.
    scene = make_scene([[[20.2, 0.0, 21.9, 60.0]]], (64, 64), ONE)
    assert len(scene.assign(MaxIoU(reassign_best=False, margin=0.01)).pairs) == 0


@pytest.mark.parametrize(
    ("foreground", "background", "dropped"), [(0.5, 0.4, False), (0.6, 0.5, True)], ids=["positive", "not background"]
)
def test_thresholds_are_inclusive(foreground, background, dropped):
    """Of the ground truth, one anchor has an IoU of exactly a half, the next one 0.8."""
    priors = AnchorGenerator(strides=(16,), sizes=(2.0,))([(3, 4)], torch.device("cpu"))
    predictions = DensePredictions(priors, DeltaCodec(), {"logits": [torch.zeros(1, 1, 3, 4)]})
    matcher = MaxIoU(foreground=foreground, background=background)
    targets = make_targets([[[16.0, 8.0, 56.0, 40.0]]], size=(48, 64))
    assignment = matcher(predictions, targets, score=Score(), progress=0.0)
    half, better = 5, 6  # in the second of three rows
    assert assignment.pairs.prior.tolist() == ([better] if dropped else [half, better])
    assert assignment.dropped[1].tolist() == ([half] if dropped else [])


# The last two have no area, or one border in common with the outermost anchors.
NOWHERE = [[], [[5000.0, 0.0, 5100.0, 50.0]], [[10.0, 10.0, 10.0, 40.0]], [[576.5, 0.0, 600.0, 50.0]]]


@pytest.mark.parametrize("boxes", NOWHERE)
def test_ground_truths_that_meet_no_anchor_get_none(boxes):
    scene = make_scene([boxes, []], (64, 64), ONE)
    assignment = scene.assign(MaxIoU())
    assert len(assignment.pairs) == 0 and len(assignment.dropped[0]) == 0
