"""What is thresholded, what ranks, how many pairs a level keeps, and when boxes are clipped."""

from dataclasses import replace

import pytest
import torch

from la_det.modeling.candidate_rules import LocationsFirst, TopClass, TopLocations, TopPairs
from la_det.modeling.inference import DenseInference
from la_det.structures import AnchorGenerator, DensePredictions, LTRBCodec, PointGenerator, Score

SIZE = torch.tensor([(16, 24)])  # 2 x 3 cells of stride 8


def logit(p) -> torch.Tensor:
    return torch.as_tensor(p, dtype=torch.float32).logit()


def make_predictions(p, quality, reach=2.0, generator=None) -> DensePredictions:
    """One image and level; probabilities [K, 2, 3], qualities [2, 3], boxes that reach so many pixels."""
    priors = (generator or PointGenerator(strides=(8,)))([(2, 3)], torch.device("cpu"))
    boxes = torch.full((1, 4, 2, 3), reach)
    return DensePredictions(
        priors, LTRBCodec(), {"logits": [logit(p)[None]], "boxes": [boxes], "quality": [logit(quality)[None, None]]}
    )


P = torch.tensor([[[0.9, 0.5, 0.04], [0.3, 0.2, 0.06]]])
QUALITY = torch.tensor([[0.1, 0.8, 0.99], [0.9, 0.5, 0.6]])


@pytest.mark.parametrize("rank_by_quality, expected", [(False, [0, 1, 3]), (True, [1, 3, 4])])
def test_ranking(rank_by_quality, expected):
    """The score is sqrt(p q) either way; the threshold is one of p, so that prior 2 has no chance."""
    rule = DenseInference(use_quality=True, candidates=TopPairs(by_quality=rank_by_quality, topk=3))
    found = rule(make_predictions(P, QUALITY), SIZE)
    assert sorted(found.priors[found.valid].tolist()) == expected
    priors = found.priors[0]
    torch.testing.assert_close(found.scores[0], (P.flatten()[priors] * QUALITY.flatten()[priors]).sqrt())
    assert (found.scores[0].diff() <= 0).all()


def test_pairs_below_the_threshold_take_no_place_of_others():
    """Prior 3 has a larger p q than prior 0, but too small a p."""
    rule = DenseInference(use_quality=True, score_threshold=0.35, candidates=TopPairs(by_quality=True, topk=2))
    found = rule(make_predictions(P, QUALITY), SIZE)
    assert sorted(found.priors[found.valid].tolist()) == [0, 1]


def test_ranking_by_quality_with_fewer_pairs_than_topk():
    found = DenseInference(use_quality=True, candidates=TopPairs(by_quality=True))(make_predictions(P, QUALITY), SIZE)
    assert sorted(found.priors[found.valid].tolist()) == [0, 1, 3, 4, 5]


@pytest.mark.parametrize("cap_topk, expected", [(True, 6), (False, 18)])
def test_cap_at_the_number_of_locations(cap_topk, expected):
    p = torch.linspace(0.1, 0.9, 18).view(3, 2, 3)
    found = DenseInference(candidates=TopPairs(cap=cap_topk))(make_predictions(p, QUALITY), SIZE)
    assert int(found.valid.sum()) == expected
    pairs = list(zip(found.priors[0].tolist(), found.classes[0].tolist(), strict=True))
    assert len(set(pairs[:expected])) == expected


def test_pairs_of_the_best_locations_below_the_threshold_take_no_place_of_others():
    """Prior 0 has a pair of p q = 0.0396 and too small a p, prior 1 one of 0.03."""
    p, quality = torch.full((2, 2, 3), 0.001), torch.full((2, 3), 0.01)
    p[:, 0, 0], p[0, 0, 1] = torch.tensor([0.9, 0.04]), 0.3
    quality[0, 0], quality[0, 1] = 0.99, 0.1
    rule = DenseInference(use_quality=True, max_detections=2, candidates=TopLocations(topk=2))
    found = rule(make_predictions(p, quality), SIZE)
    assert sorted(found.priors[found.valid].tolist()) == [0, 1]


def test_one_class_of_each_location():
    """That of largest p, also where another class of a better location is better."""
    p = torch.stack([P[0], 0.7 * P[0].flip(1)])
    rule = DenseInference(candidates=TopClass(), score_threshold=0.0)
    found = rule(make_predictions(p, QUALITY), SIZE)
    assert sorted(found.priors[found.valid].tolist()) == [0, 1, 2, 3, 4, 5]
    largest, cls = p.flatten(1).max(0)
    assert torch.equal(found.classes[0], cls[found.priors[0]])
    torch.testing.assert_close(found.scores[0], largest[found.priors[0]])


def test_one_class_of_each_prior_of_a_cell():
    generator = AnchorGenerator(strides=(8,), ratios=(0.5, 2.0))
    predictions = make_predictions(torch.rand(2 * 3, 2, 3), torch.full((2, 3), 0.5), generator=generator)
    p = predictions.joined("logits")[0].sigmoid()  # [K, R]
    found = DenseInference(candidates=TopClass(), score_threshold=0.0)
    kept = found.candidates(replace(predictions, maps=predictions.maps | boxes_of_two(predictions)), SIZE)
    assert kept.priors[0].sort().values.tolist() == list(range(12))
    assert torch.equal(kept.classes[0], p.argmax(0)[kept.priors[0]])
    torch.testing.assert_close(kept.scores[0], p.amax(0)[kept.priors[0]])


def boxes_of_two(predictions: DensePredictions) -> dict[str, list[torch.Tensor]]:
    """Box and quality maps for two priors per cell."""
    return {name: [x.repeat(1, 2, 1, 1) for x in predictions.maps[name]] for name in ("boxes", "quality")}


def test_the_square_root_of_class_and_quality_is_ranked_and_thresholded():
    score = Score(gate="quality", square_root=True)
    found = DenseInference(score=score, score_threshold=0.5)(make_predictions(P, QUALITY), SIZE)
    expected = (P[0] * QUALITY).sqrt().flatten()
    assert sorted(found.priors[found.valid].tolist()) == (expected > 0.5).nonzero().squeeze(1).tolist()
    torch.testing.assert_close(found.scores[0], expected[found.priors[0]])


def test_all_pairs_of_the_locations_with_the_best_pair():
    """Prior 3 has many good pairs, but priors 0 and 5 the best ones; the quality does not matter."""
    p = torch.full((5, 2, 3), 0.06)
    p[:, 1, 0], p[0, 0, 0], p[1, 1, 2] = 0.5, 0.9, 0.8
    found = DenseInference(candidates=LocationsFirst(topk=2))(make_predictions(p, QUALITY), SIZE)
    assert sorted(set(found.priors[found.valid].tolist())) == [0, 5]
    assert int(found.valid.sum()) == 8, "4 pairs of a location on average"
    every = DenseInference(candidates=LocationsFirst(topk=6))(make_predictions(p, QUALITY), SIZE)
    assert int(every.valid.sum()) == 24


def test_cap_counts_every_prior_of_a_cell():
    """2 x 3 cells with two priors of three classes each."""
    priors = AnchorGenerator(strides=(8,), ratios=(1.0, 2.0))([(2, 3)], torch.device("cpu"))
    maps = {"logits": [torch.zeros(1, 6, 2, 3)], "boxes": [torch.ones(1, 8, 2, 3)]}
    found = DenseInference(candidates=TopPairs(cap=True))(DensePredictions(priors, LTRBCodec(), maps), SIZE)
    assert int(found.valid.sum()) == 12


@pytest.mark.parametrize(
    ("box_offset", "first", "last"),
    [(0, [0, 0, 8, 8], [16, 8, 24, 16]), (1, [0, 0, 9, 9], [16, 8, 24, 16])],
)
def test_clipping(box_offset, first, last):
    generator = PointGenerator(strides=(8,), box_offset=box_offset)
    predictions = make_predictions(P, QUALITY, reach=4.0, generator=generator)
    predictions.maps["boxes"][0][..., 0, 0] = torch.tensor([9.0, 9.0, 4.0, 4.0])
    predictions.maps["boxes"][0][..., 1, 2] = torch.tensor([4.0, 4.0, 100.0, 100.0])
    candidates = DenseInference(score_threshold=0.0, clip=True).candidates(predictions, SIZE)
    boxes = dict(zip(candidates.priors[0].tolist(), candidates.boxes[0], strict=True))
    assert boxes[0].tolist() == first
    assert boxes[5].tolist() == last
    unclipped = DenseInference(score_threshold=0.0).candidates(predictions, SIZE)
    assert unclipped.boxes.amin() < 0


@pytest.mark.parametrize(
    ("box_offset", "left", "right", "prior", "expected"),
    [
        (0, -20.0, 40.0, 5, [24, 8, 24, 16]),
        (1, -20.0, 40.0, 5, [23, 8, 24, 16]),
        (0, 40.0, -20.0, 3, [0, 8, 0, 16]),
        (1, 40.0, -20.0, 3, [0, 8, 1, 16]),
    ],
)
def test_clipping_outside_the_image_leaves_one_pixel_in_the_pixel_inclusive_convention(
    box_offset, left, right, prior, expected
):
    generator = PointGenerator(strides=(8,), box_offset=box_offset)
    predictions = make_predictions(P, QUALITY, reach=4.0, generator=generator)
    predictions.maps["boxes"][0][:, 0] = left
    predictions.maps["boxes"][0][:, 2] = right
    candidates = DenseInference(score_threshold=0.0, clip=True).candidates(predictions, SIZE)
    boxes = dict(zip(candidates.priors[0].tolist(), candidates.boxes[0], strict=True))
    assert boxes[prior].tolist() == expected


def test_clipping_comes_before_nms():
    """Two boxes that differ only outside the image are one after clipping."""
    predictions = make_predictions(P, QUALITY, reach=4.0)
    maps = predictions.maps["boxes"][0]
    maps[..., 0, 0] = torch.tensor([4.0, 4.0, 8.0, 8.0])  # 0, 0, 12, 12
    maps[..., 0, 1] = torch.tensor([12.0, 40.0, 0.0, 8.0])  # 0, -36, 12, 12
    priors = {}
    for clip in (False, True):
        found = DenseInference(nms_threshold=0.6, clip=clip)(predictions, SIZE)
        priors[clip] = set(found.priors[found.valid].tolist())
    assert {0, 1} <= priors[False]
    assert 0 in priors[True] and 1 not in priors[True]


def test_several_priors_of_a_cell_with_quality():
    generator = AnchorGenerator(strides=(8,), sizes=(1.0, 2.0))
    priors = generator([(2, 3)], torch.device("cpu"))
    torch.manual_seed(0)
    maps = {
        "logits": [torch.randn(1, 2 * 3, 2, 3)],
        "boxes": [torch.rand(1, 2 * 4, 2, 3)],
        "quality": [torch.randn(1, 2, 2, 3)],
    }
    predictions = DensePredictions(priors, LTRBCodec(), maps)
    rule = DenseInference(
        use_quality=True, candidates=TopPairs(by_quality=True, cap=False), score_threshold=0.0, max_detections=4
    )
    found = rule(predictions, SIZE)
    product = predictions.joined("logits").sigmoid() * predictions.joined("quality").sigmoid()  # [1, 3, 12]
    expected = product.flatten().topk(4)
    torch.testing.assert_close(found.scores[0], expected.values.sqrt())
    assert torch.equal(found.classes[0] * 12 + found.priors[0], expected.indices)
