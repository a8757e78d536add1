"""Whether a measured figure is the published one."""

from __future__ import annotations

from collections.abc import Mapping

from la_det.conversion.repositories import Repository
from la_det.model_zoo.records import Record

# Metric that is judged -> how much it varies from training to training, in percent, where authors state nothing. These
# are the figures of DeFCN's authors. Other metrics are shown only.
NOISE = {"AP": 0.3, "mask AP": 0.3, "mMR": 1.0}
ROUNDING = 0.1  # percent: one unit of the last digit that is published

SAME, NOISY, DIFFERENT, UNKNOWN = "as published", "within noise", "differs", "nothing published"
_ELSEWHERE = " test-dev"  # measured by COCO's server


def expected(record: Record, repository: Repository | None = None) -> dict[str, float]:
    """Metric -> published figure in percent, of those that can be measured here.

    Args:
        repository: whose weights they are. A repository that trained another one's recipe has figures of its own,
            "MMDetection AP". None: the first one's.
    """
    other = "MMDetection " if repository is not None and repository.recipes_of else ""
    figures = {metric: value for metric, value in record.published.items() if not metric.endswith(_ELSEWHERE)}
    if other:
        return {metric.removeprefix(other): value for metric, value in figures.items() if metric.startswith(other)}
    return {metric: value for metric, value in figures.items() if not metric.startswith("MMDetection ")}


def figures(results: Mapping[str, Mapping[str, float | None]]) -> dict[str, float | None]:
    """Metric, as records call it -> figure in percent, of an evaluation's results. None: there is no number."""
    boxes = results.get("crowdhuman") or results.get("bbox") or {}
    found = dict(boxes)
    if "AR" in found:
        found["AR@100"] = found.pop("AR")
    masks = results.get("segm", {})
    return found | ({"mask AP": masks["AP"]} if "AP" in masks else {})


def judge(record: Record, published: Mapping[str, float], measured: Mapping[str, float | None]) -> str:
    """The worst verdict on the metrics that are judged.

    `SAME`: the figure is at most `ROUNDING` away, or at most the noise if this is smaller. `NOISY`: it is at most the
    noise away that the authors of the record state, or `NOISE`. `DIFFERENT`: it is further away, or no number.
    """
    noise = NOISE | dict(record.noise)
    verdicts = []
    for metric in NOISE.keys() & published.keys():
        value = measured.get(metric)
        distance = float("inf") if value is None else abs(value - published[metric]) - 1e-6  # of decimal fractions
        bounds = {SAME: min(ROUNDING, noise[metric]), NOISY: noise[metric], DIFFERENT: float("inf")}
        verdicts.append(next(verdict for verdict, bound in bounds.items() if distance <= bound))
    return max(verdicts, key=(SAME, NOISY, DIFFERENT).index, default=UNKNOWN)
