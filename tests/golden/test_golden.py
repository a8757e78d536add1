"""la_det against the official implementations' numbers: copies of the golden files in tests/data."""

from pathlib import Path

import pytest
import torch

from la_det.testing.check import check_file, find_files, modules

DATA = Path(__file__).parents[1] / "data"
QUICK = DATA / "checkpoints" / "poto_crowdhuman.npz"  # of the whole models, which take seconds each


def parameter(path: Path):
    whole_model = path.parent == QUICK.parent and path != QUICK
    return pytest.param(path, id=str(path.relative_to(DATA)), marks=[pytest.mark.slow] if whole_model else [])


FILES = [parameter(path) for path in find_files([DATA / name for name in modules()])]


@pytest.mark.parametrize("path", FILES)
def test_golden_file(path: Path) -> None:
    check(path, "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("path", [file for file in FILES if "crowdhuman" not in file.id.split("/")[0]])
def test_golden_file_on_a_gpu(path: Path) -> None:
    check(path, "cuda")


def check(path: Path, device: str) -> None:
    report = check_file(path, device=device)
    assert report.error is None
    assert not report.missing
    assert [c for c in report.comparisons if not c.passed] == []
    assert report.passed
