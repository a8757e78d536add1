"""CONTRIBUTING.md followed with a toy scheme, in a copy of the project: each object gets its nearest location of P3."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FILES = {
    "la_det/matchers/nearest_center.py": """
import torch

from la_det.steps.candidates import every_pair, nearest_priors
from la_det.steps.select import best_per_prior
from la_det.structures import Assignment


class NearestCenter:
    @torch.no_grad()
    def __call__(self, predictions, targets, *, score, progress):
        priors = predictions.priors
        pairs = every_pair(nearest_priors(priors, targets, 1)[:, :1], targets)
        best = best_per_prior(pairs, -targets.areas[pairs.gt], priors, targets.num_images)
        return Assignment(pairs[best])
""",
    "la_det/references/nearest_center.py": """
import torch


def rule(matcher, x):
    assigned = torch.full((len(x.priors),), -1)
    finest = x.priors.points[: x.priors.level_starts[1]]
    areas = (x.gts[:, 2] - x.gts[:, 0]) * (x.gts[:, 3] - x.gts[:, 1])
    for gt in areas.argsort(descending=True, stable=True).tolist():
        center = (x.gts[gt, :2] + x.gts[gt, 2:]) / 2
        assigned[(finest - center).square().sum(1).argmin()] = gt
    return assigned
""",
    "projects/Toy/schemes.yaml": """
order: 99
schemes:
  toy:
    title: Toy
    family: one-to-one
    config: common/models/toy
    matcher: la_det.matchers.nearest_center.NearestCenter
    losses: [FocalLoss, GIoULoss]
    reference: la_det.references.nearest_center.rule
    golden: toy
    repository: nobody/toy
""",
    "projects/Toy/zoo.yaml": """
shapes:
  columns: [measured AP]
  records:
    toy_r18_fpn_shapes_tiny: {}
""",
    "projects/Toy/README.md": """
# Toy

<!-- zoo: shapes -->
<!-- end -->

<!-- zoo: where -->
<!-- end -->
""",
    "configs/common/models/toy.py": """
from detectron2.config import LazyCall as L

from la_det.matchers.nearest_center import NearestCenter

from .poto import model

model.criteria[0].matcher = L(NearestCenter)()
""",
    "projects/Toy/golden.py": """
def check(golden):
    golden.close("two", golden.tensor("one") * 2, atol=0)
""",
}

CODE = """
import numpy as np, sys
from la_det.benchmark.matching import build_case, make_scene
from la_det.benchmark.operations import count_operations
from la_det.comparison.schemes import SCHEMES, config_name
from la_det.testing.check import check_file
from pathlib import Path

case = build_case("toy", make_scene(5, 80), 80, "cpu")
assert case.has_dense()
case.dense_train()
assert sum(count_operations(case.train).operations.values()) < 250
assert "toy" in SCHEMES and config_name("toy", "shapes_tiny") == "Toy/toy_r18_fpn_shapes_tiny"
Path("toy").mkdir()
np.savez("toy/case.npz", one=np.ones(3, np.float32), two=2 * np.ones(3, np.float32))
assert check_file(Path("toy/case.npz")).passed
"""


def test_a_toy_scheme(tmp_path):
    assert len(FILES) <= 7 and sum(file.startswith("la_det/") for file in FILES) == 2
    for folder in ("la_det", "configs", "projects", "tools", "docs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "images"))
    for file, text in FILES.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip())
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    run("-c", CODE)
    assert "projects/Toy/README.md: written" in run("tools/zoo_table.py")
    assert (
        "[NearestCenter](../../la_det/matchers/nearest_center.py)" in (tmp_path / "projects/Toy/README.md").read_text()
    )


@pytest.mark.slow
def test_the_viewer_knows_the_toy(tmp_path):
    test_a_toy_scheme(tmp_path)
    command = [sys.executable, "tools/show_assignments.py", "--config-file", "Toy/toy_r18_fpn_shapes_tiny"]
    done = subprocess.run(
        [*command, "--output", "shown", "--num-images", "1"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "DETECTRON2_DATASETS": str(tmp_path / "datasets")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert list((tmp_path / "shown").glob("*.html"))
