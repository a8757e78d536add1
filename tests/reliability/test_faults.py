"""Every fault of `faults.py` does what docs/reliability.md says."""

from pathlib import Path

import pytest

from tests.reliability.faults import BEGIN, FAULTS, Lab, tried

DOCS = Path(__file__).parents[2] / "docs" / "reliability.md"


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_fault(lab: Lab, name: str) -> None:
    row = tried(FAULTS[name], lab, name)
    assert not row.problems, row


def test_the_table_has_every_fault() -> None:
    table = DOCS.read_text().partition(BEGIN)[2]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    assert set(FAULTS) <= set(rows)
