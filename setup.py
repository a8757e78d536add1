"""Package metadata of la_det; the tools' settings are in pyproject.toml."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
EXPORT = ["onnx", "onnxruntime", "onnxscript"]
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "la_det/__init__.py").read_text(), re.MULTILINE)[1]


class BuildWithConfigs(build_py):
    """Copies configs/ and projects/ into la_det.model_zoo; an editable install reads them where they are."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for folder in ("configs", "projects"):
                target = Path(self.build_lib, "la_det/model_zoo", folder)
                shutil.rmtree(target, ignore_errors=True)  # of an earlier build
                shutil.copytree(ROOT / folder, target, ignore=shutil.ignore_patterns("__pycache__", "golden.py"))


setup(
    name="la_det",
    version=VERSION,
    description="Label assignment for dense object detectors on Detectron2",
    license="Apache-2.0",
    packages=find_packages(include=["la_det", "la_det.*"], exclude=["la_det.testing"]),
    package_data={"la_det.visualization": ["page.html"]},
    cmdclass={"build_py": BuildWithConfigs},
    python_requires=">=3.10",
    # Detectron2 is missing here because the registry does not have it: see tools/install_detectron2.py.
    install_requires=[
        "faster-coco-eval",
        "filelock>=3.30",
        "fvcore",
        "matplotlib",
        "numpy",
        # Headless: the plain opencv-python wheel does the same to images but needs libGL, which bare machines lack.
        "opencv-python-headless",
        "pycocotools",
        "pyyaml",
        "rich",
        "safetensors",
        "scipy",
        "supervision>=0.31",
        "tensorboard",
        "torch",
        "torchvision",
    ],
    extras_require={
        "dev": [*EXPORT, "hypothesis", "pytest", "pytest-xdist", "ruff", "scikit-learn>=1.2", "selenium", "timm"],
        "export": EXPORT,
        "timm": ["timm"],
        "wandb": ["wandb"],
    },
)
