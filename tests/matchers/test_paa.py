"""PAA against the dense version with scikit-learn in la_det/references/paa.py, its fits, and the edges."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture
from torchvision.ops import box_iou

from la_det.matchers import PAA
from la_det.matchers.paa import Candidates, Mixture, fit, up_to_peak
from la_det.references import atss, paa
from la_det.references.scene import matched_in_image
from la_det.structures import AnchorGenerator, Assignment, Score
from tests.matchers.anchor_scenes import Scene, make_scene, scenes

ANCHORS = AnchorGenerator(sizes=(8.0,))


def matched(scene: Scene, assignment: Assignment) -> torch.Tensor:
    """[N, R] ground truth within the image, -1 for background."""
    return matched_in_image(assignment, scene.targets, len(scene.predictions.priors))


@settings(max_examples=40, deadline=None)
@given(scenes(ANCHORS))
def test_same_as_the_dense_version(scene):
    matcher, predictions, targets = PAA(), scene.predictions, scene.targets
    pairs = matcher.first(predictions, targets, score=Score(), progress=0.0).pairs
    s = torch.zeros(targets.num_images, len(predictions.priors))
    s[pairs.image, pairs.prior] = matcher.scores(predictions, targets, pairs, Score())
    assignment = scene.assign(matcher)
    assert assignment.weight is None and assignment.dropped is None
    logits = predictions.joined("logits").transpose(1, 2)
    of_images = zip(matched(scene, Assignment(pairs)), matched(scene, assignment), strict=True)
    for i, (first, actual) in enumerate(of_images):
        gts = scene.boxes(i)
        if len(gts) == 0:
            assert (actual == -1).all()
            continue
        iou = box_iou(predictions.priors.boxes, gts).nan_to_num(0)
        assert torch.equal(first, atss.max_iou(iou, 0.1, 0.1, to_that=False))
        expected = paa.scores(logits[i], scene.decoded(i), gts, targets.classes[targets.image == i], first)
        torch.testing.assert_close(s[i], expected, rtol=1e-4, atol=1e-4)
        # From our scores, whose rounding differs.
        assert torch.equal(actual, paa.assign(first, s[i], predictions.priors.levels, len(gts)))


def table(rows: list[np.ndarray], size: int = 45) -> Candidates:
    """Candidates with these scores."""
    score = torch.zeros(len(rows), size, dtype=torch.float64)
    for row, x in zip(score, rows, strict=True):
        row[: len(x)] = torch.from_numpy(np.sort(x))
    count = torch.tensor([len(x) for x in rows])
    exist = torch.arange(size) < count.unsqueeze(1)
    return Candidates(torch.zeros_like(exist, dtype=torch.int64), score, exist)


@st.composite
def score_sets(draw) -> list[np.ndarray]:
    """Scores as they occur, in clusters, scattered, all equal; up to 45 each."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = []
    for kind in draw(st.lists(st.sampled_from(["uniform", "clusters", "equal", "skewed"]), min_size=1, max_size=6)):
        n = int(rng.integers(2, 46))
        clusters = np.where(rng.random(n) < 0.4, rng.normal(0.3, 0.05, n), rng.normal(1.4, 0.2, n))
        rows.append(
            {
                "uniform": rng.uniform(0, 3, n),
                "clusters": clusters,
                "equal": np.full(n, rng.uniform(0, 3)),
                "skewed": rng.exponential(0.5, n),
            }[kind]
        )
    return [row.astype(np.float32).astype(np.float64) for row in rows]


@settings(max_examples=40, deadline=None)
@given(score_sets())
@pytest.mark.filterwarnings("ignore:.*did not converge")
def test_fits_are_those_of_scikit_learn(rows):
    candidates = table(rows)
    mixture = fit(candidates)
    count = up_to_peak(candidates, mixture).sum(1)
    for i, x in enumerate(np.sort(row)[:, None] for row in rows):
        official = GaussianMixture(
            2, weights_init=[0.5, 0.5], means_init=x[[0, -1]], precisions_init=np.ones((2, 1, 1))
        ).fit(x)
        expected = [official.weights_, official.means_[:, 0], official.covariances_[:, 0, 0]]
        assert mixture.iterations[i] == official.n_iter_
        torch.testing.assert_close(mixture.parameters[..., i], torch.tensor(np.array(expected)), rtol=1e-8, atol=1e-12)
        assert count[i] == paa.num_positives(x[:, 0])


def test_fits_do_not_depend_on_each_other():
    rng = np.random.default_rng(0)
    rows = [rng.uniform(0, 3, n) for n in (0, 1, 2, *range(5, 46))]
    together = fit(table(rows))
    assert together.iterations.max() > 10, "all stop before the first look"
    for i, row in enumerate(rows):
        alone = fit(table([row]))
        assert torch.equal(alone.iterations[0], together.iterations[i])
        torch.testing.assert_close(alone.parameters[..., 0], together.parameters[..., i], equal_nan=True)


def test_one_candidate_is_positive():
    candidates = table([np.array([0.7])])
    assert up_to_peak(candidates, fit(candidates)).sum() == 1


def test_of_equal_candidates_the_first_is_positive():
    candidates = table([np.full(n, 0.1 * n) for n in range(2, 46)])
    assert (up_to_peak(candidates, fit(candidates)).sum(1) == 1).all()


def mixture_of(weight, mean, variance) -> Mixture:
    parameters = torch.tensor([weight, mean, variance], dtype=torch.float64).unsqueeze(-1)
    return Mixture(parameters, torch.tensor([3]))


def test_of_equal_candidates_the_first_is_positive_where_rounding_differs():
    """Elements that do not fill a vector register may be rounded otherwise: in about 1 of 80 of these mixtures."""
    rng = np.random.default_rng(0)
    candidates = table([np.full(45, 0.7)])
    for _ in range(1000):
        (near, far), variances = np.sort(rng.uniform(0.1, 0.5, 2)), rng.uniform(0.1, 1.1, 2)
        positive = up_to_peak(candidates, mixture_of([0.9, 0.1], [0.7 + near, 0.7 + far], variances.tolist()))
        assert positive.sum() == 1


def test_positives_are_a_prefix_of_all_candidates():
    """The second component is so wide that the smallest score is its own; it is positive all the same."""
    candidates = table([np.array([0.0, 0.9, 1.0, 1.1, 5.0])])
    positive = up_to_peak(candidates, mixture_of([0.5, 0.5], [1.0, 2.0], [0.01, 4.0]))
    assert positive[0, :5].tolist() == [True, True, True, False, False]
    assert not positive[0, 5:].any()


def test_all_are_positive_where_the_first_component_has_none():
    candidates = table([np.array([1.0, 2.0, 3.0])])
    positive = up_to_peak(candidates, mixture_of([0.5, 0.5], [9.0, 2.0], [0.01, 1.0]))
    assert torch.equal(positive, candidates.exist)


def test_no_candidates_no_positives():
    candidates = table([np.array([])])
    assert not up_to_peak(candidates, fit(candidates)).any()


@pytest.mark.parametrize("boxes", [[], [[5000.0, 0.0, 5100.0, 50.0]], [[10.0, 10.0, 10.0, 40.0]]])
def test_ground_truths_that_meet_no_anchor_get_none(boxes):
    assert len(make_scene([boxes, []], (64, 64), ANCHORS).assign(PAA()).pairs) == 0


def test_of_equal_ground_truths_only_the_first_gets_anchors():
    assignment = make_scene([[[10.0, 10.0, 60.0, 60.0]] * 2], (64, 64), ANCHORS).assign(PAA())
    assert set(assignment.pairs.gt.tolist()) == {0}


def test_a_tiny_ground_truth_has_candidates():
    """Its IoU with every anchor is below 0.1, but some have its largest."""
    assignment = make_scene([[[20.0, 20.0, 23.0, 22.0]]], (64, 64), ANCHORS).assign(PAA())
    assert 0 < len(assignment.pairs) <= 9


def test_a_level_gives_nine_candidates_at_most():
    scene = make_scene([[[30.0, 30.0, 130.0, 130.0]]], (160, 160), ANCHORS)
    pairs = scene.assign(PAA()).pairs
    assert torch.bincount(scene.predictions.priors.levels[pairs.prior]).max() <= 9
    more = scene.assign(PAA(topk=30)).pairs
    assert torch.bincount(scene.predictions.priors.levels[more.prior]).max() > 9


@pytest.mark.parametrize("name", ["logits", "boxes"])
def test_a_diverged_prediction_does_not_hide(name):
    scene = make_scene([[[10.0, 10.0, 60.0, 60.0]]], (64, 64), ANCHORS)
    scene.predictions.maps[name][0][0, :, 4, 4] = torch.nan
    pairs = scene.assign(PAA()).pairs
    assert 4 * 8 + 4 in pairs.prior.tolist()
