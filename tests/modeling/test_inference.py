"""DeFCN's inference against loops over pairs, and the edges of it. The golden files do not reach the cap of top-k."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import nms

from la_det.modeling.candidate_rules import TopPairs
from la_det.modeling.inference import DenseInference, to_instances
from la_det.structures import DensePredictions, LTRBCodec, PointGenerator, Score

STRIDES = (8, 16, 32)
SIZES = [(5, 6), (3, 3), (2, 2)]
IMAGE_SIZES = [(40, 48), (36, 41)]


def make_predictions(num_classes: int, seed: int) -> DensePredictions:
    generator = torch.Generator().manual_seed(seed)
    priors = PointGenerator(strides=STRIDES)(SIZES, torch.device("cpu"))

    def maps(channels, spread):
        return [spread * torch.randn(2, channels, *size, generator=generator) for size in SIZES]

    boxes = [x.abs() for x in maps(4, 12.0)]
    names = {"logits": maps(num_classes, 2.0), "boxes": boxes, "quality": maps(1, 1.0), "filter": maps(1, 1.0)}
    return DensePredictions(priors, LTRBCodec(), names)


def expected_detections(predictions, image, gate, use_quality, nms_threshold, threshold, topk, limit):
    """The official code's steps, pair by pair: rows (score, class, prior, box)."""
    rows = []
    priors, boxes = predictions.priors, predictions.boxes()[image]
    for level, (h, w) in enumerate(SIZES):
        pairs = []
        for i in range(h):
            for j in range(w):
                at = (image, slice(None), i, j)
                p = predictions.maps["logits"][level][at].sigmoid()
                if gate:
                    p = p * predictions.maps["filter"][level][at].sigmoid()
                quality = predictions.maps["quality"][level][at].sigmoid().item()
                prior = priors.level_starts[level] + i * w + j
                pairs += [(float(v), k, prior, quality) for k, v in enumerate(p)]
        pairs = sorted(pairs, reverse=True)[: min(topk, h * w)]
        rows += [
            ((p * q) ** 0.5 if use_quality else p, k, prior, boxes[prior]) for p, k, prior, q in pairs if p > threshold
        ]
    if nms_threshold is not None:
        kept = []
        for k in {row[1] for row in rows}:
            same = [row for row in rows if row[1] == k]
            index = nms(torch.stack([row[3] for row in same]), torch.tensor([row[0] for row in same]), nms_threshold)
            kept += [same[i] for i in index]
        rows = kept
    return sorted(rows, key=lambda row: -row[0])[:limit]


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 3]),
    st.sampled_from([(None, False, None), ("filter", False, None), (None, False, 0.5), (None, True, 0.6)]),
    st.sampled_from([4, 1000]),
    st.sampled_from([5, 100]),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_same_as_loops(seed, num_classes, variant, topk, limit):
    gate, use_quality, nms_threshold = variant
    predictions = make_predictions(num_classes, seed)
    rule = DenseInference(
        score=Score(gate),
        use_quality=use_quality,
        score_threshold=0.1,
        candidates=TopPairs(topk=topk),
        nms_threshold=nms_threshold,
        max_detections=limit,
    )
    found = rule(predictions, torch.tensor(IMAGE_SIZES))
    for image in range(2):
        expected = expected_detections(predictions, image, gate, use_quality, nms_threshold, 0.1, topk, limit)
        valid = found.valid[image]
        assert int(valid.sum()) == len(expected)
        assert valid[: len(expected)].all(), "valid entries come first"
        assert found.classes[image, valid].tolist() == [row[1] for row in expected]
        assert found.priors[image, valid].tolist() == [row[2] for row in expected]
        assert found.scores[image, valid].tolist() == pytest.approx([row[0] for row in expected], abs=1e-6)
        if expected:
            torch.testing.assert_close(found.boxes[image, valid], torch.stack([row[3] for row in expected]))


def test_a_small_level_keeps_as_many_pairs_as_it_has_locations():
    """Not as many as it has (location, class) pairs."""
    predictions = make_predictions(8, 0)
    for level in predictions.maps["logits"]:
        level.fill_(2.0)
    found = DenseInference(max_detections=1000).candidates(predictions, torch.tensor(IMAGE_SIZES))
    assert found.valid.all()
    levels = predictions.priors.levels[found.priors[0]]
    assert torch.bincount(levels).tolist() == [30, 9, 4]


def test_the_threshold_is_strict():
    predictions = make_predictions(1, 0)
    for level in predictions.maps["logits"]:
        level.fill_(-20.0)
    predictions.maps["logits"][0][0, 0, 0, 0] = 0.0
    assert DenseInference(score_threshold=0.5)(predictions, torch.tensor(IMAGE_SIZES)).valid.sum() == 0
    assert DenseInference(score_threshold=0.499)(predictions, torch.tensor(IMAGE_SIZES)).valid.sum() == 1


@pytest.mark.parametrize("nms_threshold", [None, 0.6])
def test_nothing_found(nms_threshold):
    predictions = make_predictions(2, 0)
    for level in predictions.maps["logits"]:
        level.fill_(-20.0)
    found = DenseInference(nms_threshold=nms_threshold)(predictions, torch.tensor(IMAGE_SIZES))
    instances = to_instances(found, IMAGE_SIZES, [(80, 96), (72, 82)])
    assert [len(i) for i in instances] == [0, 0]
    assert instances[1].image_size == (72, 82)


def test_rescaled_clipped_and_without_empty_boxes():
    priors = PointGenerator(strides=(8,))([(1, 3)], torch.device("cpu"))
    # Around x = 4 inside, around x = 12 across the border at 14, and around x = 20 outside.
    maps = {"logits": [torch.tensor([[[[3.0, 2.0, 1.0]]]])], "boxes": [torch.full((1, 4, 1, 3), 3.0)]}
    predictions = DensePredictions(priors, LTRBCodec(), maps)
    found = DenseInference()(predictions, torch.tensor([(8, 14)]))
    assert found.boxes[0].tolist() == [[1, 1, 7, 7], [9, 1, 15, 7], [17, 1, 23, 7]]
    (instances,) = to_instances(found, [(8, 14)], [(16, 42)])
    assert instances.image_size == (16, 42)
    assert instances.pred_boxes.tensor.tolist() == [[3, 2, 21, 14], [27, 2, 42, 14]]
    assert instances.priors.tolist() == [0, 1]
    assert found.boxes[0, 0].tolist() == [1, 1, 7, 7], "the candidates were changed"
