"""ATSS and Dynamic ATSS against the dense versions in la_det/references/atss.py, and at the edges."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from la_det.matchers import ATSS, FCOS, DynamicATSS, TopKIoU
from la_det.references import atss as reference
from la_det.references.scene import dense_matches, make_targets
from la_det.structures import AnchorGenerator, DeltaCodec, DensePredictions, Score
from tests.matchers.anchor_scenes import STRIDES, Scene, make_scene, scenes

CONTINUOUS, INCLUSIVE = AnchorGenerator(sizes=(8.0,)), AnchorGenerator(sizes=(8.0,), box_offset=1)
# Anchors that are small for the scene, so that several levels compete.
SMALL = AnchorGenerator(sizes=(2.0,))
TOPK = [(9, 0.01), (3, 4.0)]  # options of `TopKIoU`


def in_the_codes_coordinates(boxes: torch.Tensor, box_offset: int) -> torch.Tensor:
    return boxes.double() - torch.tensor([0, 0, box_offset, box_offset])


def compare(scene: Scene, dynamic: bool, size: float) -> int:
    """Asserts equality with the dense version on every image where single precision decides; the positives there."""
    priors = scene.predictions.priors
    offset = priors.box_offset
    levels = reference.anchors(priors.grid_sizes, STRIDES, offset, size)
    assignment = scene.assign(DynamicATSS() if dynamic else ATSS())
    actual = scene.within_image(dense_matches(assignment, scene.targets.num_images, len(priors)))
    quality, count = torch.zeros(actual.shape), 0
    if dynamic:
        quality[assignment.pairs.image, assignment.pairs.prior] = assignment.target
    for i, matched in enumerate(actual):
        gts = in_the_codes_coordinates(scene.boxes(i), offset)
        predicted = in_the_codes_coordinates(scene.decoded(i), offset) if dynamic else None
        expected, expected_quality, margin = reference.atss(levels, gts, offset, predicted)
        if margin < 1e-5:
            continue
        count += int((expected >= 0).sum())
        assert torch.equal(matched, expected)
        if dynamic:
            torch.testing.assert_close(quality[i], expected_quality.float(), rtol=0, atol=1e-4)
    return count


@settings(max_examples=40, deadline=None)
@given(st.data(), st.booleans(), st.sampled_from([(CONTINUOUS, 8.0), (INCLUSIVE, 8.0), (SMALL, 2.0)]))
def test_same_as_the_dense_version(data, dynamic, generator):
    compare(data.draw(scenes(generator[0])), dynamic, generator[1])


@pytest.mark.parametrize("generator", [CONTINUOUS, INCLUSIVE])
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_crowd(generator, dynamic):
    """Many overlapping ground truths, so that locations are contested; the comparison is not empty."""
    random = torch.Generator().manual_seed(3)
    corners = torch.rand(60, 2, generator=random) * 200
    boxes = torch.cat([corners, corners + 20 + torch.rand(60, 2, generator=random) * 80], 1)
    scene = make_scene([boxes[:40], boxes[40:]], (256, 256), generator)
    assert compare(scene, dynamic, 8.0) > 100


def test_order_of_ground_truths_decides_only_ties():
    """Duplicates: all positives go to the first one."""
    box = [30.0, 40.0, 120.0, 130.0]
    scene = make_scene([[box, box]], (160, 160), CONTINUOUS)
    for matcher in (ATSS(), DynamicATSS()):
        pairs = scene.assign(matcher).pairs
        assert len(pairs) and not pairs.gt.any()


@pytest.mark.parametrize("matcher", [ATSS(), DynamicATSS(), TopKIoU()])
@pytest.mark.parametrize("boxes", [[], [[20.0, 20.0, 20.0, 60.0]], [[13.0, 13.0, 15.0, 15.0]]])
def test_ground_truths_without_positives(matcher, boxes):
    """None; one without area; one that no centre lies in: ATSS gives it nothing."""
    scene = make_scene([boxes, []], (64, 64), CONTINUOUS)
    assignment = scene.assign(matcher)
    assert len(assignment.pairs) == 0
    assert assignment.dropped is None


def test_a_single_candidate_has_no_deviation_and_stays_background():
    generator = AnchorGenerator(strides=(64,), sizes=(1.0,))
    scene = make_scene([[[0.0, 0.0, 64.0, 64.0]]], (64, 64), generator)
    assert len(scene.assign(ATSS()).pairs) == 0
    assert len(scene.assign(TopKIoU()).pairs) == 1


def test_distance_weighs_a_thousandth_of_an_iou():
    """The farthest anchor's IoU is 0.501, that of the one at the centre 0.499."""
    priors = AnchorGenerator(strides=(32, 64), sizes=(4.0,))([(1, 1), (1, 1)], torch.device("cpu"))
    predictions = DensePredictions(priors, DeltaCodec(), {"logits": [torch.zeros(1, 1, 1, 1)] * 2})
    targets = make_targets([[[-74.6, -74.6, 106.6, 106.6]]])
    assignment = TopKIoU(topk=1)(predictions, targets, score=Score(), progress=0.0)
    assert assignment.pairs.prior.tolist() == [1]


@pytest.mark.parametrize("matcher", [ATSS, DynamicATSS])
def test_centres_within_the_margin_are_outside(matcher):
    """The point (20, 20) is the only one in the box, 0.005 pixels from its left side. Predictions are the anchors."""
    scene = make_scene([[[19.995, 19.0, 21.0, 21.0]]], (64, 64), CONTINUOUS)
    for x in scene.predictions.maps["boxes"]:
        x.zero_()
    assert len(scene.assign(matcher(margin=0.0)).pairs) == 1
    assert len(scene.assign(matcher()).pairs) == 0


def test_nan_predictions_give_no_positives():
    scene = make_scene([[[10.0, 10.0, 100.0, 120.0]]], (128, 128), CONTINUOUS)
    for x in scene.predictions.maps["boxes"]:
        x.fill_(torch.nan)
    assert len(scene.assign(DynamicATSS()).pairs) == 0


def test_predictions_decide_in_dynamic_atss():
    """Perfect boxes at one corner of the object draw the positives there."""
    box = torch.tensor([16.0, 16.0, 112.0, 112.0])
    scene = make_scene([[box.tolist()]], (128, 128), CONTINUOUS)
    priors, maps = scene.predictions.priors, scene.predictions.maps
    for level, x in enumerate(maps["boxes"]):
        x.fill_(-20.0)  # far away and tiny
        if level == 1:
            prior = torch.arange(priors.level_starts[1], priors.level_starts[2])
            exact = scene.predictions.codec.encode(box.expand(len(prior), 4), priors, prior)
            x[0] = torch.where((prior % 8 == 3).unsqueeze(1), exact, -20.0).T.view(4, 8, 8)
    assignment = scene.assign(DynamicATSS())
    assert len(assignment.pairs) > 0
    assert (priors.levels[assignment.pairs.prior] == 1).all()
    torch.testing.assert_close(assignment.target, torch.ones(len(assignment.pairs)))


@settings(max_examples=30, deadline=None)
@given(st.data(), st.sampled_from([(CONTINUOUS, 8.0), (INCLUSIVE, 8.0), (SMALL, 2.0)]), st.sampled_from(TOPK))
def test_topk_is_the_dense_version(data, generator, options):
    scene = data.draw(scenes(generator[0], kinds=("object", "tiny", "duplicate", "narrow", "degenerate")))
    priors = scene.predictions.priors
    levels = reference.anchors(priors.grid_sizes, STRIDES, priors.box_offset, generator[1])
    assignment = scene.assign(TopKIoU(topk=options[0], margin=options[1]))
    actual = scene.within_image(dense_matches(assignment, scene.targets.num_images, len(priors)))
    for i, matched in enumerate(actual):
        gts = in_the_codes_coordinates(scene.boxes(i), priors.box_offset)
        if len(gts):
            expected, margin = reference.topk(levels, gts, priors.box_offset, *options)
            assert margin < 1e-6 or torch.equal(matched, expected)


@pytest.mark.parametrize(
    ("left", "right", "positive"),
    [
        (10.0, 80.0, True),
        (19.98, 80.0, True),  # the point is 0.02 pixels inside the inset box
        (19.995, 80.0, False),  # inside, but within the margin
        (10.0, 85.0, True),  # 64 pixels to the inset box's right side, the size range's border
        (10.0, 85.25, False),
    ],
)
def test_fcos_in_the_pixel_inclusive_convention(left, right, positive):
    """SSC of ATSS's code: distances to the inset box. The point of cell (2, 2) of the first level lies at 20.5."""
    scene = make_scene([[[left, 0.0, right, 60.0]]], (64, 96), INCLUSIVE)
    pairs = scene.assign(FCOS(center_radius=0, margin=0.01)).pairs
    assert (2 * 12 + 2 in pairs.prior.tolist()) == positive
