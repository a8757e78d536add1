import numpy as np
import pytest
from scipy import stats

from la_det.comparison.ratios import Noise, Ratio, Ratios
from la_det.comparison.report import separation
from la_det.comparison.summary import read_rows


def test_what_scheme_and_seed_explain_is_no_noise():
    """A seed changes all AP by the same share."""
    aps = {"a": 10.0, "b": 20.0, "c": 21.0}
    ratios = Ratios({name: {seed: ap * 1.1**seed for seed in range(3)} for name, ap in aps.items()})
    assert ratios.noise.spread == pytest.approx(0, abs=1e-9)
    assert ratios.noise.degrees == 4
    assert ratios.noise_of_other_seeds.spread == pytest.approx(np.log(1.1))
    assert ratios.between("b", "a").mean == pytest.approx(2)


@pytest.mark.parametrize("share", [1.0, 0.7])
def test_noise_is_found_again(share):
    """Also where some runs are missing."""
    rng = np.random.default_rng(0)
    logs = rng.normal(0, 0.2, (400, 3)) + rng.normal(3, 0.9, (400, 1)) + rng.normal(0, 0.5, 3)
    done = rng.random(logs.shape) < share
    aps = {str(i): {s: float(np.exp(logs[i, s])) for s in range(3) if done[i, s]} for i in range(400)}
    ratios = Ratios(aps)
    assert ratios.noise.spread == pytest.approx(0.2, rel=0.1)
    assert ratios.noise_of_other_seeds.spread > 0.3


def test_of_two_schemes_it_is_the_paired_t_test_of_logarithms():
    a, b = {0: 10.0, 1: 12.5, 2: 11.0}, {0: 12.0, 1: 13.0, 2: 14.5}
    logs = (np.log(list(aps.values())) for aps in (a, b))
    expected = stats.ttest_rel(*logs).confidence_interval(0.95)
    ratio = Ratios({"a": a, "b": b}).between("a", "b")
    assert (ratio.low, ratio.high) == pytest.approx((np.exp(expected.low), np.exp(expected.high)))
    assert ratio.is_noise == (expected.low <= 0 <= expected.high)


def test_more_seeds_of_one_scheme_keep_what_is_known():
    aps = {"a": {0: 10.0, 1: 12.5, 2: 11.0}, "b": {0: 12.0, 1: 13.0, 2: 14.5}}
    before = Ratios(aps)
    aps["a"][3] = 11.5
    aps["c"] = {0: 20.0}
    after = Ratios(aps)
    assert after.noise.degrees == before.noise.degrees == 2
    assert after.noise.spread == pytest.approx(before.noise.spread)
    assert str(after.between("a", "b")) == str(before.between("a", "b"))
    single = after.between("c", "b")  # the other seeds say how much of the AP is the seed's
    assert single.high / single.mean < after.noise.factor(2)


@pytest.mark.parametrize("aps", [{}, {"a": {0: 1.0, 1: 2.0}}, {"a": {0: 1.0}, "b": {0: 2.0}}, {"a": {0: 0.0}}])
def test_without_two_schemes_of_two_seeds_noise_is_unknown(aps):
    assert Ratios(aps).noise is None


def test_schemes_with_other_seeds_have_no_ratio():
    ratios = Ratios({"a": {0: 10.0, 1: 12.5}, "b": {0: 12.0, 1: 13.0}, "c": {2: 14.5, 3: 12.0}})
    assert ratios.between("a", "b") is not None
    assert ratios.between("a", "c") is None
    assert ratios.not_told_apart("c") == ["b", "a"]


def test_noise_of_other_runs():
    noise = Noise(0.1, 10)
    ratio = Ratios({"a": {0: 10.0}, "b": {0: 20.0}}, noise).between("b", "a")
    assert ratio.mean == pytest.approx(2)
    assert ratio.high / ratio.mean == pytest.approx(np.exp(stats.t.ppf(0.975, 10) * 0.1 * np.sqrt(2)))


def test_schemes_that_cannot_be_told_apart(results):
    for seed, share in enumerate((1.0, 1.3, 1.1)):  # the seed's part cancels
        for scheme, ap in (("fcos", 10.0), ("poto", 10.4), ("dw", 20.0)):
            results.add_run(scheme, [share * ap + 0.5 * (scheme == "fcos") * (seed - 1)], seed=seed)
    results.add_run("lla", [9.0])  # seed 0 alone
    results.add_run("atss", [0.0])
    rows = read_rows(results.folder)["shapes_tiny"]
    ratios = Ratios.of_rows(rows)
    assert ratios.best_first[0] == "dw" and ratios.best_first[-1] == "atss"
    assert ratios.not_told_apart("dw") == ["atss"]  # nothing is known of a scheme that found nothing
    assert ratios.not_told_apart("fcos") == ["poto", "lla", "atss"]
    assert str(ratios.between("dw", "poto")).startswith("1.92 (")
    lines = separation(rows).splitlines()
    assert next(line for line in lines if line.startswith("| dw")).split("|")[2].strip() == "atss"


def test_one_seed_is_said(results):
    results.add_run("fcos", [10.0])
    assert separation(read_rows(results.folder)["shapes_tiny"]).startswith("With one seed per scheme")


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.9, 1.3, "(0.90 to 1.30)"),
        (1.0004, 1.3, "(1.000 to 1.30)"),
        (1.004, 1.3, "(1.004 to 1.30)"),
        (0.8, 0.996, "(0.80 to 0.996)"),
    ],
)
def test_a_bound_near_1_shows_its_side(low, high, text):
    assert str(Ratio(1.1, low, high)) == f"1.10 {text}"
