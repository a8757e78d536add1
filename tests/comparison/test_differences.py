import numpy as np
import pytest
from scipy import stats

from la_det.comparison.differences import Differences, Noise
from la_det.comparison.report import separation
from la_det.comparison.summary import read_rows


def test_what_scheme_and_seed_explain_is_no_noise():
    aps = [{seed: scheme + 3 * seed for seed in range(3)} for scheme in (10.0, 20.0, 21.0)]
    assert Noise.of(aps).spread == pytest.approx(0, abs=1e-9)
    assert Noise.of(aps).degrees == 4


def test_noise_is_found_again():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 2, (400, 3)) + rng.normal(0, 9, (400, 1)) + rng.normal(0, 9, 3)
    assert Noise.of([dict(enumerate(row)) for row in values.tolist()]).spread == pytest.approx(2, rel=0.1)


def test_of_two_schemes_it_is_the_paired_t_test():
    a, b = {0: 10.0, 1: 12.5, 2: 11.0}, {0: 12.0, 1: 13.0, 2: 14.5}
    interval = stats.ttest_rel(list(a.values()), list(b.values())).confidence_interval(0.95)
    assert 2 * Noise.of([a, b]).half_width(3) == pytest.approx(interval.high - interval.low)


@pytest.mark.parametrize("aps", [[], [{0: 1.0, 1: 2.0}], [{0: 1.0}, {0: 2.0}]])
def test_without_two_schemes_of_two_seeds_noise_is_unknown(aps):
    assert Noise.of(aps) is None


def test_schemes_that_cannot_be_told_apart(results):
    for seed, shift in enumerate((0.0, 3.0, 1.0)):  # the seed's part cancels
        for scheme, ap in (("fcos", 10.0), ("poto", 10.4), ("dw", 20.0)):
            results.add_run(scheme, [ap + shift + 0.5 * (scheme == "fcos") * (seed - 1)], seed=seed)
    results.add_run("lla", [9.0])  # seed 0 alone
    rows = read_rows(results.folder)["shapes_tiny"]
    differences = Differences(rows)
    assert differences.best_first[0] == "dw" and differences.not_told_apart("dw") == []
    assert differences.not_told_apart("fcos") == ["poto", "lla"]
    assert differences.between("dw", "poto").mean == pytest.approx(9.6)
    assert differences.between("lla", "fcos").half_width == pytest.approx(differences.noise.half_width(1))
    lines = separation(rows).splitlines()
    assert next(line for line in lines if line.startswith("| dw")).split("|")[2].strip() == "none"


def test_one_seed_is_said(results):
    results.add_run("fcos", [10.0])
    assert separation(read_rows(results.folder)["shapes_tiny"]).startswith("With one seed per scheme")
