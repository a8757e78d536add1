"""Detections of distinct queries."""

import pytest
import torch

from la_det.evaluation.nms_gap import VariantInference
from la_det.modeling.query_inference import QueryInference
from la_det.references import ddq as reference
from la_det.references.image import images
from la_det.references.scene import make_targets, random_boxes, random_predictions
from la_det.steps.queries import DistinctQueries
from la_det.structures import Score

SIZE = (64, 96)


@pytest.fixture
def scene():
    generator = torch.Generator().manual_seed(0)
    boxes = [random_boxes(generator, ["object"] * 6, *SIZE) for _ in range(2)]
    targets = make_targets(boxes, [[0, 1, 2, 0, 1, 2]] * 2, SIZE)
    return random_predictions(generator, targets, *SIZE, 3), targets


@pytest.mark.parametrize("score", [Score(), Score(gate="quality", square_root=True)])
def test_best_pairs_of_the_queries(scene, score):
    predictions, targets = scene
    rule = QueryInference(queries=DistinctQueries(), score=score, score_threshold=0.0, clip=True, max_detections=30)
    found = rule(predictions, torch.tensor([SIZE, SIZE]))
    for i, x in enumerate(images(score, predictions, targets)):
        index = reference.queries(x.p, x.boxes, x.priors.level_starts, 1000, 0.7)
        p, order = x.p[index].flatten().topk(30)
        torch.testing.assert_close(found.scores[i], p)
        assert found.classes[i].tolist() == (order % 3).tolist()
        assert found.priors[i].tolist() == index[order // 3].tolist()
        boxes = x.boxes[found.priors[i]].clamp(min=0).minimum(torch.tensor([96.0, 64, 96, 64]))
        torch.testing.assert_close(found.boxes[i], boxes)
        assert len(set(found.priors[i].tolist())) < 30  # some with several classes


def test_its_nms_is_part_of_the_candidates_that_nms_gap_compares(scene):
    predictions, _ = scene
    rule = QueryInference(queries=DistinctQueries(nms_threshold=0.5), score_threshold=0.0)
    variants = VariantInference(rule)
    variants(predictions, torch.tensor([SIZE, SIZE]))
    assert variants.names == ["with_nms"]
    chosen = rule.queries(predictions, rule.score)
    found = rule.candidates(predictions, torch.tensor([SIZE, SIZE]))
    assert chosen.mask.gather(1, found.priors)[found.valid].all()
    (with_nms, _) = variants.variants([SIZE, SIZE])["with_nms"]
    assert 0 < len(with_nms) <= 100


@pytest.mark.parametrize("option", ["use_quality", "quality_exponent", "candidates", "voting"])
def test_options_that_do_nothing_are_refused(option):
    with pytest.raises(TypeError, match=option):
        QueryInference(queries=DistinctQueries(), **{option: None})


def test_few_pairs_and_a_threshold(scene):
    predictions, _ = scene
    rule = QueryInference(queries=DistinctQueries(topk=2), score_threshold=0.5, max_detections=1000)
    found = rule(predictions, torch.tensor([SIZE, SIZE]))
    assert (
        found.scores.shape[1] == 3 * (2 * 4 + 1) and (found.scores[found.valid] > 0.5).all() and not found.valid.all()
    )
