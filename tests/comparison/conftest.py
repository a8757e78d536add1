"""Hand-made results."""

from pathlib import Path

import pytest

from la_det.comparison.cost import CostRecord, cost_file
from la_det.comparison.results import RunRecord, run_file, write_record
from la_det.comparison.schemes import config_name

VERSIONS = {"la_det": "0.1.0", "torch": "2.9", "torchvision": "0.24", "detectron2": "0.6", "python": "3.11"}


class Results:
    """A folder to which runs and costs are added by a few figures."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add_run(
        self, scheme: str, aps: list[float | None], *, data: str = "shapes_tiny", seed: int = 0, max_iter=30, **metrics
    ) -> Path:
        """A run whose evaluations at equal distances have these APs, and `metrics` beside them."""
        task = {"shapes_tiny": "bbox", "shapes_crowd": "crowdhuman"}[data]
        evaluations = [
            {"iteration": max_iter * (i + 1) // len(aps), f"{task}/AP": ap} | metrics for i, ap in enumerate(aps)
        ]
        record = RunRecord(
            config=config_name(scheme, data),
            seed=seed,
            budget={"max_iter": max_iter},
            max_iter=max_iter,
            overrides=[],
            versions=VERSIONS,
            device="cpu",
            threads=2,
            evaluations=evaluations,
        )
        path = run_file(self.folder, record)
        write_record(path, record)
        return path

    def add_cost(self, scheme: str, steps_ms: list[float], matching_ms: list[float]) -> Path:
        """Costs with these milliseconds in each round, 100, 101, ... MiB, and 2.5 million parameters."""
        rounds = [
            {"step": step, "matching": matching, "peak_mib": 100.0 + i}
            for i, (step, matching) in enumerate(zip(steps_ms, matching_ms, strict=True))
        ]
        path = cost_file(self.folder, scheme, "shapes_tiny")
        write_record(path, CostRecord(scheme, "shapes_tiny", [], 20, VERSIONS, "cpu", 2, 2_500_000, rounds))
        return path


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "docs" / "results")
