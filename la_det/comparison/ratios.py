"""Which ratios between the AP of schemes are further from 1 than chance makes them."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from la_det.comparison.summary import Row, metric

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Noise:
    """What remains of the logarithm of the AP of single runs, beside a part of the scheme and a part of the seed.

    A seed decides the batches of all schemes alike, and changes the AP of each by about the same share. So its part
    cancels in ratios between schemes. It would not cancel in differences: these grow with the AP.

    Attributes:
        spread: standard deviation of what remains.
        degrees: degrees of freedom that it was estimated with.
    """

    spread: float
    degrees: int

    @classmethod
    def of(cls, aps: list[dict[int, float]]) -> Noise | None:
        """From the APs of schemes by seed: those of all schemes that have as many seeds as any; None without two each.

        The least squares of scheme and seed leave (schemes - 1) (seeds - 1) degrees of freedom.
        """
        seeds = sorted(max(aps, key=len, default={}))
        values = np.log([[ap[seed] for seed in seeds] for ap in aps if set(seeds) <= ap.keys()])
        if len(values) < 2 or len(seeds) < 2:
            return None
        rest = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
        degrees = (len(values) - 1) * (len(seeds) - 1)
        return cls(math.sqrt((rest**2).sum() / degrees), degrees)

    def factor(self, num_seeds: int) -> float:
        """What the ratio of two schemes with this number of seeds in common is divided and multiplied by.

        The results are the ends of its confidence interval.
        """
        quantile = stats.t.ppf((1 + CONFIDENCE) / 2, self.degrees)
        return math.exp(quantile * self.spread * math.sqrt(2 / num_seeds))


@dataclass(frozen=True)
class Ratio:
    """Geometric mean of the ratios of the AP of two schemes with equal seeds, and its confidence interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, a: dict[int, float], b: dict[int, float], noise: Noise | None) -> Ratio | None:
        """AP by seed of `a` over that of `b`; None without noise or common seeds."""
        seeds = a.keys() & b.keys()
        if noise is None or not seeds:
            return None
        mean, factor = statistics.geometric_mean(a[seed] / b[seed] for seed in seeds), noise.factor(len(seeds))
        return cls(mean, mean / factor, mean * factor)

    @property
    def is_noise(self) -> bool:
        """Whether the interval contains 1."""
        return self.low <= 1 <= self.high

    def __str__(self) -> str:
        return f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"


class Ratios:
    """All ratios between the schemes of one data set.

    Args:
        rows: of `read_rows`; those without runs are left out.
    """

    def __init__(self, rows: list[Row]) -> None:
        self.aps = {row.scheme: _aps(row) for row in rows if row.runs}
        self.noise = Noise.of(list(self.aps.values()))

    @cached_property
    def best_first(self) -> list[str]:
        """The schemes, by mean AP."""
        return sorted(self.aps, key=lambda scheme: -statistics.fmean(self.aps[scheme].values() or [0.0]))

    def between(self, a: str, b: str) -> Ratio | None:
        """AP of `a` over AP of `b`; None without noise or common seeds."""
        return Ratio.of(self.aps[a], self.aps[b], self.noise)

    def not_told_apart(self, scheme: str) -> list[str]:
        """The other schemes, best first, whose ratio to this one is within the noise or unknown."""
        others = [other for other in self.best_first if other != scheme]
        found = {other: self.between(scheme, other) for other in others}
        return [other for other, ratio in found.items() if ratio is None or ratio.is_noise]


def _aps(row: Row) -> dict[int, float]:
    """By seed, without runs that found nothing: their AP has no ratio."""
    aps = {run.seed: metric(run.evaluations[-1], "AP") for run in row.runs}
    return {seed: ap for seed, ap in aps.items() if ap}
