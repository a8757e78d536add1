import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from la_det.errors import UserError
from la_det.evaluation.crowdhuman_metrics import CrowdHumanResult, Detections, GroundTruth, evaluate_crowdhuman
from la_det.references import crowdhuman as crowdhuman_reference
from la_det.testing.check import check_file

CASES = sorted((Path(__file__).parents[1] / "data/crowdhuman").iterdir())
SIZE = (64, 64)  # height, width


def image(name: str, boxes: list, ignored: list | None = None) -> GroundTruth:
    ignored = [False] * len(boxes) if ignored is None else ignored
    return GroundTruth(name, SIZE, np.array(boxes, dtype=float).reshape(-1, 4), np.array(ignored, dtype=bool))


def found(boxes: list, scores: list | None = None) -> Detections:
    scores = np.linspace(0.95, 0.5, len(boxes)) if scores is None else scores
    return Detections(np.array(boxes, dtype=float).reshape(-1, 4), np.array(scores, dtype=float))


def evaluate_one(gt: GroundTruth, dets: Detections) -> CrowdHumanResult:
    return evaluate_crowdhuman([gt], {gt.image_id: dets})


def assert_equal(result: CrowdHumanResult, expected: dict, jaccard: bool = True) -> None:
    for name in ("AP", "mMR", "Recall", "mMR_minus4", "miss_rates"):
        np.testing.assert_allclose(getattr(result, name), expected[name], rtol=0, atol=1e-12, err_msg=name)
    for name in ("num_images", "num_gt", "num_ignored_gt"):
        assert getattr(result, name) == expected[name]
    assert {key: value.tolist() for key, value in result.flags.items()} == expected["flags"]
    if jaccard:
        np.testing.assert_allclose(result.JI, expected["JI"], rtol=0, atol=1e-12)
        for threshold, (ji, *counts) in expected["jaccard"].items():
            actual = result.jaccard[threshold]
            assert [actual.k, actual.m, actual.n] == counts
            np.testing.assert_allclose(actual.JI, ji, rtol=0, atol=1e-12)


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
def test_golden(folder: Path) -> None:
    report = check_file(folder)
    assert report.passed, report


@st.composite
def scenes(draw: st.DrawFn, num_images: int = 3) -> tuple[list[GroundTruth], dict[str, Detections]]:
    """Crowds of few distinct boxes, some beyond the border, with many equal overlaps and equal scores."""
    coordinate, extent = st.integers(-4, 16).map(lambda v: 4 * v), st.integers(0, 8).map(lambda v: 4 * v)
    box = st.tuples(coordinate, coordinate, extent, extent)
    gts, dets = [], {}
    for index in range(num_images):
        boxes = draw(st.lists(box, max_size=6))
        ignored = draw(st.lists(st.booleans(), min_size=len(boxes), max_size=len(boxes)))
        gts.append(image(f"{index}", boxes, ignored))
        if draw(st.booleans()) or index == 0:
            near = st.tuples(st.sampled_from(boxes or [(0, 0, 8, 8)]), st.tuples(*[st.integers(-2, 2)] * 4))
            moved = near.map(lambda pair: tuple(max(a + b, 0) for a, b in zip(*pair, strict=True)))
            detected = draw(st.lists(box | moved, max_size=12))
            scores = draw(st.lists(st.integers(0, 10), min_size=len(detected), max_size=len(detected)))
            dets[f"{index}"] = found(detected, [score / 10 for score in scores])
    return gts, dets


@given(scenes())
@settings(max_examples=150, deadline=None)
def test_equals_the_rules_written_as_loops(scene: tuple[list[GroundTruth], dict[str, Detections]]) -> None:
    gts, dets = scene
    # JI apart: between equal overlaps several maximum-weight matchings exist.
    assert_equal(evaluate_crowdhuman(gts, dets), crowdhuman_reference.evaluate(gts, dets), jaccard=False)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.15, 0.3]))
@settings(max_examples=60, deadline=None)
def test_equals_the_loops_with_jaccard_index(seed: int, jitter: float) -> None:
    rng = np.random.default_rng(seed)
    gts, dets = [], {}
    for index in range(rng.integers(1, 5)):
        num_gts = rng.integers(0, 12)
        boxes = np.concatenate((rng.uniform(-10, 60, (num_gts, 2)), rng.uniform(10, 40, (num_gts, 2))), axis=1)
        gts.append(image(f"{index}", boxes.tolist(), (rng.random(num_gts) < 0.2).tolist()))
        detected = np.repeat(boxes, 4, axis=0) * rng.normal(1, jitter, (4 * num_gts, 4))
        dets[f"{index}"] = found(np.maximum(detected, 0.1).tolist(), rng.random(4 * num_gts).tolist())
    assert_equal(evaluate_crowdhuman(gts, dets), crowdhuman_reference.evaluate(gts, dets))


def test_perfect_detections_lack_the_first_slab_of_area() -> None:
    boxes = [[0, 0, 10, 10], [20, 0, 10, 10], [40, 0, 10, 10], [0, 30, 10, 10]]
    result = evaluate_one(image("a", boxes), found(boxes))
    assert (result.AP, result.Recall, result.mMR) == (0.75, 1.0, 0.0)
    # The threshold is exceeded strictly, and the ratio of an image has an epsilon.
    assert result.JI == result.jaccard[0.0].JI == pytest.approx(4 / (4 + 1e-6), abs=1e-15)
    assert evaluate_one(image("a", boxes), found(boxes[:1])).AP == 0


def test_overlap_must_exceed_one_half() -> None:
    gt = image("a", [[0, 0, 10, 20]])
    assert evaluate_one(gt, found([[0, 0, 10, 10]])).flags["a"].tolist() == [0]
    assert evaluate_one(gt, found([[0, 0, 10, 10.01]])).flags["a"].tolist() == [1]
    ignored = image("a", [[0, 0, 10, 10]], [True])
    assert evaluate_one(ignored, found([[5, 0, 10, 10]])).flags["a"].tolist() == [0]
    assert evaluate_one(ignored, found([[4.99, 0, 10, 10]])).flags["a"].tolist() == [-1]


def test_overlap_of_exactly_one_half_where_epsilon_vanishes() -> None:
    side = 2.0**27
    gt = GroundTruth("a", (2**30, 2**30), np.array([[0, 0, side, 2 * side]] * 2), np.array([False, True]))
    dets = found([[0, 0, side, side], [side / 2, 0, side, side]])
    assert evaluate_one(gt, dets).flags["a"].tolist() == [-1, 0]
    assert evaluate_one(gt, dets).jaccard[0.0].k == 0


def test_between_equal_overlaps_the_first_ground_truth_is_taken() -> None:
    gt = image("a", [[0, 0, 20, 20], [4, 0, 20, 20]])
    over_both, over_the_first, over_the_second = [2, 0, 20, 20], [0, 0, 14, 20], [10, 0, 14, 20]
    assert evaluate_one(gt, found([over_both, over_the_first])).flags["a"].tolist() == [1, 0]
    assert evaluate_one(gt, found([over_both, over_the_second])).flags["a"].tolist() == [1, 1]


def test_a_chain_of_taken_ground_truths_is_resolved_in_score_order() -> None:
    boxes = [[index, 0, 30, 30] for index in range(12)]
    gt = image("a", boxes)
    dets = found([[0, 0, 30, 30]] * 14)
    expected = crowdhuman_reference.evaluate([gt], {"a": dets})
    assert_equal(evaluate_one(gt, dets), expected, jaccard=False)
    assert sum(expected["flags"]["a"]) > 8  # the chain is long


def test_jaccard_index_matches_by_weight_and_not_by_score() -> None:
    # The best detection is the best of both; by greed only one pair would remain.
    gt = image("a", [[0, 0, 20, 20], [4, 0, 20, 20]])
    result = evaluate_one(gt, found([[2, 0, 20, 20], [-5.9, 0, 20, 20]], [0.9, 0.8]))
    assert result.jaccard[0.0].k == 2
    assert evaluate_one(gt, found([[2, 0, 20, 20]])).jaccard[0.0].k == 1


def test_jaccard_index_excuses_persons_and_detections_in_ignored_boxes_unless_matched() -> None:
    gt = image("a", [[0, 0, 60, 60], [0, 0, 20, 20], [30, 30, 20, 20]], [True, False, False])
    counts = evaluate_one(gt, found([[0, 0, 20, 20], [10, 40, 5, 5]])).jaccard[0.0]
    assert (counts.k, counts.m, counts.n) == (1, 1, 1)


def test_clipping_keeps_one_pixel_beyond_the_right_border_only() -> None:
    gt = image("a", [[100, 10, 10, 10], [-30, 10, 20, 10]])
    assert evaluate_one(gt, found([[90, 10, 50, 10], [-40, 10, 30, 10]])).flags["a"].tolist() == [1, 0]


def test_every_annotated_image_counts_in_the_false_positives_per_image() -> None:
    boxes = [[0, 0, 10, 10], [20, 0, 10, 10]]
    gts = [image("a", boxes), image("b", []), *(image(f"c{i}", []) for i in range(8))]
    dets = {"b": found([[0, 0, 5, 5]], [0.9]), "a": found(boxes[:1], [0.8])}
    # One false positive in ten images: 0.1, where recall is still 0; above it the last point's miss rate.
    assert evaluate_crowdhuman(gts, dets).miss_rates.tolist() == [1.0] * 5 + [0.5] * 4


def test_equal_scores_rank_by_the_order_of_the_annotations() -> None:
    box = [[0, 0, 10, 10]]
    gts = [image("hit", box), image("miss", box)]
    dets = {"miss": found([[40, 40, 5, 5]], [0.5]), "hit": found(box, [0.5])}
    first_right, first_wrong = evaluate_crowdhuman(gts, dets), evaluate_crowdhuman(gts[::-1], dets)
    assert (first_right.miss_rates[0], first_wrong.miss_rates[0]) == (0.5, 1.0)


PERSON = [[0, 0, 10, 10]]


@pytest.mark.parametrize(
    ("gt", "dets", "expected"),
    [
        (image("a", PERSON), found([]), (0.0, 1.0, 0.0, 0.0)),
        (image("a", PERSON + [[30, 30, 30, 30]], [0, 1]), found([[35, 35, 5, 5]]), (0.0, 1.0, 0.0, 0.0)),
        (image("a", []), found([[35, 35, 5, 5]]), (math.nan, math.nan, math.nan, 0.0)),
        (image("a", PERSON, [True]), found(PERSON), (math.nan,) * 4),
        (image("a", []), found([]), (math.nan,) * 4),
    ],
    ids=["no detections", "all discarded", "false positives only", "ignored only", "nothing"],
)
@pytest.mark.filterwarnings("error")
def test_degenerate_inputs(gt: GroundTruth, dets: Detections, expected: tuple[float, ...]) -> None:
    result = evaluate_one(gt, dets)
    np.testing.assert_array_equal((result.AP, result.mMR, result.Recall, result.JI), expected)
    np.testing.assert_array_equal(result.miss_rates, [expected[1]] * 9)
    assert_equal(result, crowdhuman_reference.evaluate([gt], {"a": dets}))


def test_single_precision_input_is_evaluated_in_double_precision() -> None:
    gt = image("a", PERSON)
    dets = Detections(np.array(PERSON, dtype=np.float32), np.array([0.3], dtype=np.float32))
    # As a double the score is above 0.3.
    assert evaluate_one(gt, dets).jaccard[0.3].k == 1


def test_unusable_input_is_refused() -> None:
    with pytest.raises(UserError, match="'b'"):
        evaluate_crowdhuman([image("a", [])], {"b": found([])})
    with pytest.raises(UserError, match="'a' .*not finite"):
        evaluate_one(image("a", []), found([[0, 0, 5, 5]], [math.nan]))
    with pytest.raises(UserError, match="not finite"):
        evaluate_one(image("a", []), found([[0, 0, math.inf, 5]]))
    with pytest.raises(UserError, match="empty"):
        evaluate_crowdhuman([], {})
