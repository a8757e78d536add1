import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from la_det import model_zoo

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_installed_package_has_its_configs_and_records(tmp_path):
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("la_det", "configs", "projects"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", str(tmp_path / "built")]
    subprocess.run(build, cwd=tmp_path, check=True)
    built = tmp_path / "built"
    code = "from la_det import model_zoo as z; print(z.__file__, *sorted(z.get_records()), *z.list())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=built,
        env=os.environ | {"PYTHONPATH": str(built)},
        check=True,
        capture_output=True,
        text=True,
    )
    file, *names = done.stdout.split()
    assert Path(file).is_relative_to(built)
    assert names == 2 * list(model_zoo.list())
