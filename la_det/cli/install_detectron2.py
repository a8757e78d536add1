"""Install Detectron2 for the interpreter that runs this command.

Detectron2 is not on the Python package registry under its own name. Without options this command

1. keeps an installed Detectron2 if it works: upstream's with compiled operators, or ours with all of today's patches.
   Otherwise it
2. takes release 0.6's Python tree from the registry's source archive `pb1-detectron2==0.6` (from the index that pip is
   configured for, with checked sha256), repairs what today's Python packages broke, builds a pure-Python wheel and
   installs it. Then it
3. checks that the parts of Detectron2 that la_det needs work.

The archive has no C++ sources, so there is no `detectron2._C`: rotated boxes, Detectron2's own deformable convolution
on GPUs and its fast COCO evaluation are missing. la_det uses torchvision and faster-coco-eval instead.

--source installs upstream's present code instead, compiled here: the one commit that la_det was tried with, or your
checkout or repository. It needs a C++ compiler and, for GPUs, CUDA's nvcc.

The command needs only the standard library and pip. Detectron2 works once torch and torchvision are installed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import logging
import subprocess
import sys
import tarfile
import tempfile
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ARCHIVE = "pb1-detectron2-0.6.tar.gz"
VERSION = "0.6+py2"  # version of the wheel; the last digit counts changes of PATCHES
SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
UPSTREAM = "git+https://github.com/facebookresearch/detectron2@02b5c4e295e990042a714712c21dc79b731e8833"  # June 2026

EXAMPLES = f"""
examples:
  release 0.6, without a compiler:   %(prog)s
  upstream's main, at a fixed commit: %(prog)s --source
                                     (the same as --source {UPSTREAM})
  your checkout of it:               %(prog)s --source ~/detectron2
"""


class InstallError(RuntimeError):
    """The installation cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Patch:
    """One textual edit of a file of the 0.6 source tree.

    Attributes:
        file: path in the source tree.
        old: exact text to replace.
        new: replacement.
        mends: the upstream problem that the edit solves.
        count: number of times that `old` occurs.
    """

    file: str
    old: str
    new: str
    mends: str
    count: int = 1

    def apply(self, tree: Path) -> None:
        """Edit the file below `tree`. Raise InstallError unless `old` occurs exactly `count` times."""
        path = tree / self.file
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        found = text.count(self.old)
        if found != self.count:
            raise InstallError(
                f"the patch for {self.file} no longer applies: expected {self.count} x {self.old!r}, found {found}.\n"
                f"It mends: {self.mends}.\nAdapt PATCHES in {Path(__file__).name} to the new source."
            )
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


NO_COMPILED = "imports detectron2._C, which an archive without C++ sources cannot build, when detectron2 is imported"
NUMPY_ALIAS = "NumPy 1.24 removed its aliases of Python's own types"

IMPORT_C = "from detectron2 import _C\n"
IMPORT_C_OR_STUB = """try:
    from detectron2 import _C
except ImportError:
    from detectron2.utils import no_compiled_ops as _C
"""

PATCHES = (
    Patch("detectron2/layers/deform_conv.py", IMPORT_C, IMPORT_C_OR_STUB, NO_COMPILED),
    Patch("detectron2/layers/rotated_boxes.py", IMPORT_C, IMPORT_C_OR_STUB, NO_COMPILED),
    Patch("detectron2/layers/roi_align_rotated.py", IMPORT_C, IMPORT_C_OR_STUB, NO_COMPILED),
    Patch(
        "detectron2/evaluation/coco_evaluation.py",
        "from detectron2.evaluation.fast_eval_api import COCOeval_opt\n",
        "try:\n    from detectron2.evaluation.fast_eval_api import COCOeval_opt\n"
        "except ImportError:\n    COCOeval_opt = COCOeval\n",
        NO_COMPILED,
    ),
    Patch("detectron2/evaluation/pascal_voc_evaluation.py", "astype(np.bool)", "astype(bool)", NUMPY_ALIAS, 2),
    Patch("detectron2/evaluation/sem_seg_evaluation.py", "dtype=np.int)", "dtype=int)", NUMPY_ALIAS, 2),
    Patch("detectron2/evaluation/sem_seg_evaluation.py", "dtype=np.float)", "dtype=float)", NUMPY_ALIAS, 2),
    Patch("detectron2/evaluation/sem_seg_evaluation.py", "astype(np.float)", "astype(float)", NUMPY_ALIAS, 3),
    Patch("detectron2/structures/masks.py", "astype(np.bool)", "astype(bool)", NUMPY_ALIAS, 2),
    Patch("detectron2/structures/masks.py", "dtype=np.bool)", "dtype=bool)", NUMPY_ALIAS),
    Patch("detectron2/data/datasets/pascal_voc.py", "dtype=np.str)", "dtype=str)", NUMPY_ALIAS),
    Patch("detectron2/data/build.py", "dtype=np.int)", "dtype=int)", NUMPY_ALIAS),
    Patch("detectron2/data/build.py", "dtype=np.int\n", "dtype=int\n", NUMPY_ALIAS),
    Patch(
        "detectron2/data/common.py",
        "self._rng.sample(self._fallback_candidates, k=1)[0]",
        "self._rng.choice(tuple(self._fallback_candidates))",
        "Python 3.11 draws no samples from sets, so a mapper that returns None ends in a TypeError",
    ),
    Patch(
        "detectron2/engine/hooks.py",
        "isinstance(self.scheduler, torch.optim.lr_scheduler._LRScheduler)",
        "isinstance(self.scheduler, torch.optim.lr_scheduler.LRScheduler)",
        "torch 2 derives its schedulers from LRScheduler, so that a checkpoint had no state of them",
        2,
    ),
    Patch(
        "detectron2/export/__init__.py",
        "from .api import *\n",
        "try:\n    from .api import *\nexcept ImportError:\n    pass\n",
        "torch has no Caffe2 any more, and without it neither tracing nor counting of operations could be imported",
    ),
    Patch("detectron2/utils/visualizer.py", "astype(np.bool)", "astype(bool)", NUMPY_ALIAS, 3),
    Patch("detectron2/utils/video_visualizer.py", "dtype=np.bool)", "dtype=bool)", NUMPY_ALIAS),
    Patch(
        "detectron2/data/transforms/transform.py",
        "interp=Image.LINEAR",
        "interp=Image.BILINEAR",
        "Pillow 10 removed Image.LINEAR, the old name of Image.BILINEAR",
    ),
    Patch(
        "detectron2/modeling/anchor_generator.py",
        "torch.meshgrid(shifts_y, shifts_x)",
        'torch.meshgrid(shifts_y, shifts_x, indexing="ij")',
        "torch warns that torch.meshgrid will require its indexing argument",
    ),
    Patch(
        "detectron2/model_zoo/model_zoo.py",
        "import pkg_resources\n",
        "",
        "setuptools 82 removed pkg_resources",
    ),
    Patch(
        "detectron2/model_zoo/model_zoo.py",
        'pkg_resources.resource_filename(\n        "detectron2.model_zoo", os.path.join("configs", config_path)\n    )',
        'os.path.join(os.path.dirname(__file__), "configs", config_path)',
        "setuptools 82 removed pkg_resources",
    ),
)

NO_COMPILED_OPS = '''"""Stands for detectron2._C in a build without compiled operators: importable, and clear on use."""


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    raise RuntimeError(
        f"detectron2._C.{name} is not available: this Detectron2 was built without compiled operators. "
        "Install upstream's: la-det install-detectron2 --source"
    )
'''

# Replaces the archive's setup.py, which imports torch, names the missing C++ sources and pins black and iopath.
# Dependencies are those of release 0.6 without black, pydot and future (code formatting and Caffe2 export).
SETUP = f"""from setuptools import find_packages, setup

projects = {{
    "detectron2.projects.point_rend": "projects/PointRend/point_rend",
    "detectron2.projects.deeplab": "projects/DeepLab/deeplab",
    "detectron2.projects.panoptic_deeplab": "projects/Panoptic-DeepLab/panoptic_deeplab",
}}
setup(
    name="detectron2",
    version="{VERSION}",
    author="FAIR",
    url="https://github.com/facebookresearch/detectron2",
    description="Detectron2 0.6 without compiled operators, patched for current Python packages",
    license="Apache-2.0",
    packages=find_packages(include=["detectron2", "detectron2.*"]) + list(projects),
    package_dir=projects,
    package_data={{"detectron2.model_zoo": ["configs/**/*.yaml", "configs/**/*.py"]}},
    python_requires=">=3.10",
    install_requires=[
        "numpy",
        "Pillow>=7.1",
        "matplotlib",
        "pycocotools>=2.0.2",
        "termcolor>=1.1",
        "yacs>=0.1.8",
        "tabulate",
        "cloudpickle",
        "tqdm>4.29.0",
        "tensorboard",
        "fvcore>=0.1.5",
        "iopath>=0.1.7",
        "omegaconf>=2.1",
        "hydra-core>=1.1",
    ],
)
"""

# With this file, older versions of pip also build in isolation, whatever setuptools is installed.
PYPROJECT = """[build-system]
requires = ["setuptools>=70.1"]
build-backend = "setuptools.build_meta"
"""

# A program that uses the parts of Detectron2 that la_det needs. It runs in a fresh interpreter.
ESSENTIALS = """
import numpy as np
import detectron2.config, detectron2.data, detectron2.engine, detectron2.evaluation, detectron2.layers
import detectron2.modeling, detectron2.structures
from detectron2 import model_zoo
from detectron2.config import instantiate
from detectron2.evaluation import COCOEvaluator
from detectron2.utils.visualizer import Visualizer

instantiate(model_zoo.get_config("COCO-Detection/retinanet_R_50_FPN_1x.py").model)
drawn = Visualizer(np.zeros((32, 32, 3), np.uint8)).draw_box((4, 4, 20, 20)).get_image()
assert drawn.any(), "Visualizer drew nothing"
print(detectron2.__version__, "in", detectron2.__path__[0])
"""


def verify() -> tuple[bool, str]:
    """Run ESSENTIALS. Return (True, version and place) or (False, last lines of the error)."""
    with tempfile.TemporaryDirectory() as elsewhere:  # so that a checkout in the working directory is not imported
        done = subprocess.run([sys.executable, "-c", ESSENTIALS], cwd=elsewhere, capture_output=True, text=True)
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    return done.returncode == 0, "\n".join(lines[-3:] if done.returncode else lines[-1:])


def is_outdated() -> bool:
    """Whether the installed Detectron2 is a wheel of this script without all of today's patches."""
    try:
        version = importlib.metadata.version("detectron2")
    except importlib.metadata.PackageNotFoundError:
        return False
    return version.startswith("0.6+py") and version != VERSION


def pip(*arguments: str) -> None:
    """Run this interpreter's pip. Raise InstallError if it fails."""
    if subprocess.run([sys.executable, "-m", "pip", *arguments]).returncode:
        raise InstallError(f"`pip {' '.join(arguments)}` failed, see above; mend that and run this command again")


def download(folder: Path) -> Path:
    """Fetch ARCHIVE into `folder` from the place that pip is configured for, and check its sha256.

    `pip download` would run the archive's setup.py, which fails without the C++ sources. So pip's finder and session
    (with the user's index, proxy, certificates and credentials) are used without pip's build step.
    """
    logging.getLogger("pip").setLevel(logging.ERROR)
    try:
        from pip._internal.commands import create_command

        command: Any = create_command("download")
        options, _ = command.parse_args([])
        with command.main_context():
            session = command.get_default_session(options)
            found = command._build_package_finder(options, session).find_all_candidates("pb1-detectron2")
            urls = [candidate.link.url_without_fragment for candidate in found if candidate.link.filename == ARCHIVE]
            if not urls:
                raise InstallError(f"{ARCHIVE} was not found: is the index of `pip config list` complete and in reach?")
            response = session.get(urls[0])
            response.raise_for_status()
            content = response.content
    except OSError as error:
        raise InstallError(f"cannot download {ARCHIVE}: {error}") from error
    except (ImportError, AttributeError, TypeError) as error:
        raise InstallError(f"cannot find {ARCHIVE} with this pip ({error}): install another version of pip") from error
    path = folder / ARCHIVE
    path.write_bytes(content)
    check_sha256(path)
    return path


def check_sha256(path: Path) -> None:
    """Raise InstallError unless the file is the archive that PATCHES were written for."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != SHA256:
        raise InstallError(f"{path.name} has sha256 {digest}, expected {SHA256}: refusing to use it")


def build_wheel(wheel_dir: Path) -> Path:
    """Download the archive, patch it, and build the wheel into `wheel_dir`. Return the wheel's path."""
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(download(Path(scratch))) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
            archive.extractall(scratch)
        tree = Path(scratch) / ARCHIVE.removesuffix(".tar.gz")
        for patch in PATCHES:
            patch.apply(tree)
        (tree / "detectron2/utils/no_compiled_ops.py").write_text(NO_COMPILED_OPS)
        (tree / "setup.py").write_text(SETUP)
        (tree / "pyproject.toml").write_text(PYPROJECT)
        (tree / "setup.cfg").unlink()
        pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheel_dir), str(tree))
    return wheel_dir / f"detectron2-{VERSION}-py3-none-any.whl"


def install_source(source: str) -> None:
    """Install upstream from a checkout or a git URL, compiled against the installed torch."""
    if Path(source).is_dir() or source.startswith("git+"):
        location = source
    elif "://" in source:
        location = f"git+{source}"
    else:
        raise InstallError(f"--source {source} is neither a folder nor the URL of a git repository")
    # Upstream's setup.py imports torch (hence no build isolation) and its model_zoo imports pkg_resources.
    pip("install", "--quiet", "setuptools<81", "wheel", "ninja")
    pip("install", "--no-build-isolation", "--force-reinstall", "--no-deps", location)
    pip("install", "--no-build-isolation", location)


def install_default() -> None:
    """Build and install the patched 0.6 wheel and its dependencies."""
    with tempfile.TemporaryDirectory() as wheel_dir:
        wheel = str(build_wheel(Path(wheel_dir)))
        pip("install", "--quiet", "--force-reinstall", "--no-deps", wheel)
        pip("install", "--quiet", wheel)


def install_opencv() -> None:
    """Install OpenCV unless a build of it is there: Detectron2 imports it, but leaves the choice of the wheel open."""
    if importlib.util.find_spec("cv2") is None:
        pip("install", "--quiet", "opencv-python-headless")


def add_arguments(parser: ArgumentParser, flags: bool) -> None:
    """The options."""
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--source",
        nargs="?",
        const=UPSTREAM,
        metavar="DIR|URL",
        help="install upstream from a checkout or a git URL (default: main at the commit that la_det was tried with)",
    )
    choice.add_argument(
        "--wheel-dir", metavar="DIR", type=Path, help="only build the wheel into DIR, for machines without network"
    )


def run(args: Namespace) -> int:
    """Install, and return 1 if that fails."""
    try:
        if args.wheel_dir:
            print("built", build_wheel(args.wheel_dir))
            return 0
        if args.source:
            install_source(args.source)
        else:
            works, message = verify()
            if works and not is_outdated():
                print("keeping Detectron2", message)
                return 0
            install_default()
        install_opencv()
        works, message = verify()
        if not works:
            raise InstallError(f"Detectron2 is installed but does not work (are torch and torchvision?):\n{message}")
        print("installed Detectron2", message)
    except InstallError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
