import numpy as np
import pytest
from scipy import stats

from la_det.comparison.ratios import Noise, Ratio, Ratios
from la_det.comparison.report import separation
from la_det.comparison.summary import read_rows


def test_what_scheme_and_seed_explain_is_no_noise():
    """A seed changes all AP by the same share."""
    aps = [{seed: scheme * 1.1**seed for seed in range(3)} for scheme in (10.0, 20.0, 21.0)]
    noise = Noise.of(aps)
    assert noise.spread == pytest.approx(0, abs=1e-9)
    assert noise.degrees == 4
    assert Ratio.of(aps[1], aps[0], noise).mean == pytest.approx(2)


def test_noise_is_found_again():
    rng = np.random.default_rng(0)
    logs = rng.normal(0, 0.2, (400, 3)) + rng.normal(3, 0.9, (400, 1)) + rng.normal(0, 0.5, 3)
    assert Noise.of([dict(enumerate(row)) for row in np.exp(logs).tolist()]).spread == pytest.approx(0.2, rel=0.1)


def test_of_two_schemes_it_is_the_paired_t_test_of_logarithms():
    a, b = {0: 10.0, 1: 12.5, 2: 11.0}, {0: 12.0, 1: 13.0, 2: 14.5}
    logs = (np.log(list(aps.values())) for aps in (a, b))
    expected = stats.ttest_rel(*logs).confidence_interval(0.95)
    ratio = Ratio.of(a, b, Noise.of([a, b]))
    assert (ratio.low, ratio.high) == pytest.approx((np.exp(expected.low), np.exp(expected.high)))
    assert ratio.is_noise == (expected.low <= 0 <= expected.high)


@pytest.mark.parametrize("aps", [[], [{0: 1.0, 1: 2.0}], [{0: 1.0}, {0: 2.0}]])
def test_without_two_schemes_of_two_seeds_noise_is_unknown(aps):
    assert Noise.of(aps) is None


def test_schemes_that_cannot_be_told_apart(results):
    for seed, share in enumerate((1.0, 1.3, 1.1)):  # the seed's part cancels
        for scheme, ap in (("fcos", 10.0), ("poto", 10.4), ("dw", 20.0)):
            results.add_run(scheme, [share * ap + 0.5 * (scheme == "fcos") * (seed - 1)], seed=seed)
    results.add_run("lla", [9.0])  # seed 0 alone
    results.add_run("atss", [0.0])
    rows = read_rows(results.folder)["shapes_tiny"]
    ratios = Ratios(rows)
    assert ratios.best_first[0] == "dw" and ratios.best_first[-1] == "atss"
    assert ratios.not_told_apart("dw") == ["atss"]  # nothing is known of a scheme that found nothing
    assert ratios.not_told_apart("fcos") == ["poto", "lla", "atss"]
    assert str(ratios.between("dw", "poto")).startswith("1.92 (")
    single = ratios.between("lla", "fcos")
    assert single.high / single.mean == pytest.approx(ratios.noise.factor(1))
    lines = separation(rows).splitlines()
    assert next(line for line in lines if line.startswith("| dw")).split("|")[2].strip() == "atss"


def test_one_seed_is_said(results):
    results.add_run("fcos", [10.0])
    assert separation(read_rows(results.folder)["shapes_tiny"]).startswith("With one seed per scheme")
