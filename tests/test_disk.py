"""Tests leave nothing on the disk, so that many runs do not fill it: their weights are gigabytes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

EXAMPLES = """
import pytest

@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    (folder / "weights.pth").write_text("weights")
    return folder

def test_passes(tmp_path, shared):
    (tmp_path / "weights.pth").write_text("weights")
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_passed_tests_leave_no_files(tmp_path, workers):
    examples = tmp_path / "test_examples.py"
    examples.write_text(EXAMPLES)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, "--numprocesses", workers, str(examples)],
        cwd=ROOT,
        env=env | {"TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 passed" in run.stdout
    assert not list(temporary.rglob("weights.pth"))
