"""The part of la_det's build that pyproject.toml cannot say: the wheel has a copy of the configs."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithConfigs(build_py):
    """Copies configs/ and projects/ into la_det.model_zoo; an editable install reads them where they are."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for folder in ("configs", "projects"):
                target = Path(self.build_lib, "la_det/model_zoo", folder)
                shutil.rmtree(target, ignore_errors=True)  # of an earlier build
                shutil.copytree(ROOT / folder, target, ignore=shutil.ignore_patterns("__pycache__", "golden.py"))


setup(cmdclass={"build_py": BuildWithConfigs})
