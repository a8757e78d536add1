"""Finds golden files, and runs the check for each file."""

import importlib.util
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import torch

from la_det.errors import UserError
from la_det.model_zoo.names import project_folders
from la_det.model_zoo.schemes import get_schemes
from la_det.testing.golden import Comparison, GoldenFile, NotBuilt
from la_det.testing.golden_crowdhuman import GoldenCase


@cache
def modules() -> dict[str, Path]:
    """Folder of golden files -> the module whose `check(golden)` knows them.

    A scheme's golden files are checked by `golden.py` in the scheme's project. Data sets' metrics and whole models are
    checked by modules of this package.
    """
    here = {file.stem.removeprefix("golden_"): file for file in Path(__file__).parent.glob("golden_*.py")}
    projects = {folder.name: folder / "golden.py" for folder in project_folders()}
    of_schemes = {s.golden: projects[s.project] for s in get_schemes().values() if projects[s.project].exists()}
    return dict(sorted((here | of_schemes).items()))


@cache
def golden_module(folder: str) -> ModuleType:
    """The module that checks the golden files of a folder."""
    spec = importlib.util.spec_from_file_location(f"golden_{folder}", modules()[folder])
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Report:
    """The outcome of one golden file.

    Attributes:
        path: the file.
        comparisons: comparisons of all quantities.
        missing: keys that no check looked at, and that must not be missing.
        allowed: keys that no check looked at, and that may be missing.
        error: why the file could not be checked at all.
        not_built: name of the subject of the file, if la_det does not have it; then nothing was checked.
    """

    path: Path
    comparisons: tuple[Comparison, ...] = ()
    missing: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    error: str | None = None
    not_built: str | None = None

    @property
    def passed(self) -> bool:
        """Whether something was compared and all of it is right."""
        compared = bool(self.comparisons)
        return self.error is None and compared and not self.missing and all(c.passed for c in self.comparisons)


def find_files(paths: Iterable[Path]) -> list[Path]:
    """The golden files named by files and folders (searched recursively), sorted within a folder.

    A golden file is an .npz file, or a CrowdHuman case, which is a folder.

    Raises:
        FileNotFoundError: a path does not exist, or a folder holds no golden file.
    """
    files = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
        if path.is_file() or GoldenCase.is_one(path):
            found = [path]
        else:
            found = sorted(p for p in path.rglob("*") if p.suffix == ".npz" or GoldenCase.is_one(p))
        if not found:
            raise FileNotFoundError(f"{path}: no golden file in this folder")
        files += found
    return files


def check_file(path: Path, allow_missing: Iterable[str] = (), device: str = "cpu") -> Report:
    """Runs the check of the file's method.

    Args:
        path: a golden file.
        allow_missing: variants (prefixes of keys up to a dot, or whole keys) that need no implementation.
        device: device that computes. CUDA computes without TF32, whose errors are larger than the tolerances. NumPy
            computes metrics in any case.
    """
    method = path.resolve().parent.name
    if method not in modules():
        return Report(path, error=f"unknown method {method!r}; known folders: {', '.join(modules())}")
    check: Callable[[GoldenFile | GoldenCase], None] = golden_module(method).check
    try:
        golden = GoldenCase(path) if path.is_dir() else GoldenFile(path, device)
        with torch.device(device), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            check(golden)
    except NotBuilt as missing:
        return Report(path, not_built=str(missing))
    except (UserError, OSError, KeyError, ValueError, RuntimeError, TypeError, IndexError, AttributeError) as error:
        return Report(path, error=f"{type(error).__name__}: {error}")
    if not golden.comparisons:
        return Report(path, error="nothing in this file was recognised")
    allow = tuple(allow_missing)
    unread = golden.unread()
    allowed = [key for key in unread if key in allow or key.split(".")[0] in allow]
    missing = [key for key in unread if key not in allowed]
    return Report(path, tuple(golden.comparisons), tuple(missing), tuple(allowed))
