"""Which differences of AP between schemes are larger than what chance makes of them."""

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
    """What remains of the AP of single runs, beside a part of the scheme and a part of the seed.

    A seed decides the batches of all schemes alike. So the seed's part cancels in differences between schemes.

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
        values = np.array([[ap[seed] for seed in seeds] for ap in aps if set(seeds) <= ap.keys()])
        if len(values) < 2 or len(seeds) < 2:
            return None
        rest = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
        degrees = (len(values) - 1) * (len(seeds) - 1)
        return cls(math.sqrt((rest**2).sum() / degrees), degrees)

    def half_width(self, num_seeds: int) -> float:
        """Half the confidence interval of a difference between two schemes that have this number of seeds in common."""
        factor = stats.t.ppf((1 + CONFIDENCE) / 2, self.degrees)
        return float(factor * self.spread * math.sqrt(2 / num_seeds))


@dataclass(frozen=True)
class Difference:
    """Mean difference of the AP of two schemes with equal seeds, and half of its confidence interval."""

    mean: float
    half_width: float

    @property
    def is_noise(self) -> bool:
        """Whether the interval contains 0."""
        return abs(self.mean) <= self.half_width


class Differences:
    """All differences between the schemes of one data set.

    Args:
        rows: of `read_rows`; those without runs are left out.
    """

    def __init__(self, rows: list[Row]) -> None:
        self.aps = {row.scheme: _aps(row) for row in rows if row.runs}
        self.noise = Noise.of(list(self.aps.values()))

    @cached_property
    def best_first(self) -> list[str]:
        """The schemes, by mean AP."""
        return sorted(self.aps, key=lambda scheme: -statistics.fmean(self.aps[scheme].values()))

    def between(self, a: str, b: str) -> Difference | None:
        """AP of `a` minus AP of `b`; None without noise or common seeds."""
        seeds = self.aps[a].keys() & self.aps[b].keys()
        if self.noise is None or not seeds:
            return None
        mean = statistics.fmean(self.aps[a][seed] - self.aps[b][seed] for seed in seeds)
        return Difference(mean, self.noise.half_width(len(seeds)))

    def not_told_apart(self, scheme: str) -> list[str]:
        """The other schemes, best first, whose difference to this one is within the noise or unknown."""
        others = [other for other in self.best_first if other != scheme]
        found = {other: self.between(scheme, other) for other in others}
        return [other for other, difference in found.items() if difference is None or difference.is_noise]


def _aps(row: Row) -> dict[int, float]:
    aps = {run.seed: metric(run.evaluations[-1], "AP") for run in row.runs}
    return {seed: ap for seed, ap in aps.items() if ap is not None}
