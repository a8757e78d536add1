"""la_det against the official implementations' numbers: copies of the golden files in tests/data."""

from pathlib import Path

import pytest

from la_det.testing.check import METHODS, check_file, find_files

DATA = Path(__file__).parents[1] / "data"
FILES = find_files([DATA / method for method in METHODS])


@pytest.mark.parametrize("path", FILES, ids=[str(file.relative_to(DATA)) for file in FILES])
def test_golden_file(path: Path) -> None:
    report = check_file(path)
    assert report.error is None
    assert not report.missing
    assert [c for c in report.comparisons if not c.passed] == []
    assert report.passed
