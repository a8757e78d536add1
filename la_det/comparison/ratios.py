"""Which ratios between the AP of schemes are further from 1 than chance makes them.

The model is log AP = scheme + seed + noise, fitted by least squares to all runs. Logarithms, because noise grows with
the AP. A seed decides the batches of all schemes alike, so its part cancels in ratios.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from la_det.comparison.summary import Row, metric

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Noise:
    """What the model leaves of the logarithm of the AP of single runs.

    Attributes:
        spread: standard deviation.
        degrees: degrees of freedom that it was estimated with.
    """

    spread: float
    degrees: int

    @classmethod
    def of(cls, design: np.ndarray, logs: np.ndarray) -> Noise | None:
        """From the residuals of the least squares of `design` (runs, parts); None without degrees of freedom."""
        parts, _, rank, _ = np.linalg.lstsq(design, logs, rcond=None)
        degrees = len(logs) - int(rank)
        return cls(float(np.linalg.norm(logs - design @ parts)) / math.sqrt(degrees), degrees) if degrees else None

    def factor(self, variance: float) -> float:
        """What a ratio is divided and multiplied by to get the ends of its confidence interval.

        Args:
            variance: of the ratio's logarithm, where that of a single run is 1. With n seeds in common, 2 / n.
        """
        quantile = stats.t.ppf((1 + CONFIDENCE) / 2, self.degrees)
        return math.exp(quantile * self.spread * math.sqrt(variance))


@dataclass(frozen=True)
class Ratio:
    """How many times the AP of another scheme one scheme has, and the confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Whether the interval contains 1."""
        return self.low <= 1 <= self.high

    def __str__(self) -> str:
        return f"{self.mean:.2f} ({_bound(self.low)} to {_bound(self.high)})"


def _bound(value: float) -> str:
    """The end of an interval; near 1, with the digit that says on which side it is."""
    text = f"{value:.2f}"
    return f"{value:.3f}" if text == "1.00" else text


class Ratios:
    """All ratios between schemes.

    Args:
        aps: scheme -> seed -> AP. An AP of 0 is left out: it has no ratio.
        noise: noise of other runs, for runs that are too few to know their own.

    Attributes:
        best_first: the schemes, by their part: runs with a good seed are no better for it.
        noise: None if no scheme has several seeds.
        noise_of_other_seeds: the noise that the runs would have without the seed's part: with a seed of its own each.
    """

    def __init__(self, aps: Mapping[str, Mapping[int, float]], noise: Noise | None = None) -> None:
        self._aps = aps
        runs = [(scheme, seed, ap) for scheme, by_seed in aps.items() for seed, ap in by_seed.items() if ap]
        schemes, seeds, values = zip(*runs, strict=True) if runs else ((), (), ())
        of_scheme, of_seed = (np.equal.outer(have, list(dict.fromkeys(have))) for have in (schemes, seeds))
        design, logs = np.hstack([of_scheme, of_seed]).astype(float), np.log(values)
        self._schemes = list(dict.fromkeys(schemes))
        self._gram = design.T @ design
        self._inverse = np.linalg.pinv(self._gram)
        self._parts = self._inverse @ design.T @ logs
        parts = dict(zip(self._schemes, self._parts, strict=False))
        self.best_first = sorted(aps, key=lambda scheme: -parts.get(scheme, -math.inf))
        self.noise = Noise.of(design, logs) if noise is None else noise
        self.noise_of_other_seeds = Noise.of(of_scheme.astype(float), logs)

    @classmethod
    def of_rows(cls, rows: list[Row]) -> Ratios:
        """From the rows of `read_rows`. Those without runs are left out."""
        return cls(
            {
                row.scheme: {run.seed: metric(run.evaluations[-1], "AP") or 0.0 for run in row.runs}
                for row in rows
                if row.runs
            }
        )

    def between(self, a: str, b: str) -> Ratio | None:
        """AP of `a` over AP of `b`; None if the noise is not known, or if no seeds link the two."""
        if self.noise is None or not {a, b} <= set(self._schemes):
            return None
        contrast = np.zeros(len(self._parts))
        contrast[self._schemes.index(a)] += 1
        contrast[self._schemes.index(b)] -= 1
        if not np.allclose(contrast @ self._inverse @ self._gram, contrast):
            return None
        mean = math.exp(contrast @ self._parts)
        factor = self.noise.factor(contrast @ self._inverse @ contrast)
        return Ratio(mean, mean / factor, mean * factor)

    def alone(self, a: str, b: str) -> Ratio | None:
        """The ratio from the runs of these two alone, with their own noise; None without two seeds in common."""
        return Ratios({a: self._aps[a], b: self._aps[b]}).between(a, b)

    @property
    def spreads(self) -> dict[str, float]:
        """Sample standard deviation of the logarithm of the AP of each scheme with several seeds, the least first."""
        logs = {scheme: np.log([ap for ap in by_seed.values() if ap]) for scheme, by_seed in self._aps.items()}
        found = {scheme: float(values.std(ddof=1)) for scheme, values in logs.items() if len(values) > 1}
        return dict(sorted(found.items(), key=lambda item: item[1]))

    @property
    def chance_of_spreads(self) -> float:
        """Bartlett's p: how often chance alone makes spreads that differ as much; NaN without two schemes."""
        logs = [np.log([ap for ap in self._aps[scheme].values() if ap]) for scheme in self.spreads]
        return float(stats.bartlett(*logs).pvalue) if len(logs) > 1 else math.nan

    def not_told_apart(self, scheme: str) -> list[str]:
        """The other schemes, best first, whose ratio to this one is within the noise or unknown."""
        others = [other for other in self.best_first if other != scheme]
        found = {other: self.between(scheme, other) for other in others}
        return [other for other, ratio in found.items() if ratio is None or ratio.is_noise]
