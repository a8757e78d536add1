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
    code = (
        "from la_det import model_zoo; print(model_zoo.__file__, *sorted(model_zoo.get_records()), *model_zoo.list())"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "built")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    file, *names = done.stdout.split()
    assert file.startswith(str(tmp_path / "built"))
    assert names == 2 * list(model_zoo.list())
