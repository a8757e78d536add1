"""`la-det install-detectron2` without network: what it refuses, what it keeps, what it would run."""

import ast
import importlib
import importlib.metadata
import re
from pathlib import Path
from types import ModuleType

import detectron2
import pytest
import torch
from detectron2.data.build import print_instances_class_histogram
from detectron2.data.common import MapDataset
from detectron2.engine.hooks import LRScheduler

from la_det import cli
from la_det.cli import install_detectron2
from la_det.cli.install_detectron2 import (
    ARCHIVE,
    NO_COMPILED_OPS,
    PATCHES,
    UPSTREAM,
    VERSION,
    InstallError,
    Patch,
)

PATCH = Patch("package/module.py", "old()", "new()", "upstream's old() is gone", count=2)


@pytest.fixture
def pip_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Record pip's commands instead of running them."""
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(install_detectron2, "pip", lambda *arguments: calls.append(arguments))
    return calls


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is all the package index pip knows."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    return tmp_path


def main(argv: list[str]) -> int:
    return cli.run("install-detectron2", argv)


def write_module(tree: Path, text: str) -> Path:
    path = tree / PATCH.file
    path.parent.mkdir()
    path.write_text(text)
    return path


def test_patch_replaces_every_occurrence(tmp_path: Path) -> None:
    path = write_module(tmp_path, "a = old()\nb = old()\n")
    PATCH.apply(tmp_path)
    assert path.read_text() == "a = new()\nb = new()\n"


@pytest.mark.parametrize("text", ["", "old()\n", "old() old() old()\n", "new() new()\n"])
def test_patch_fails_loudly_when_the_text_changed(tmp_path: Path, text: str) -> None:
    path = write_module(tmp_path, text)
    with pytest.raises(InstallError, match=r"package/module\.py no longer applies(.|\n)*upstream's old\(\) is gone"):
        PATCH.apply(tmp_path)
    assert path.read_text() == text


def test_patch_fails_loudly_when_the_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="expected 2 x .* found 0"):
        PATCH.apply(tmp_path)


@pytest.mark.skipif(importlib.metadata.version("detectron2") != VERSION, reason="another Detectron2 is installed")
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.file)
def test_patches_are_in_the_installed_wheel(patch: Patch) -> None:
    text = Path(importlib.metadata.distribution("detectron2").locate_file(patch.file)).read_text(encoding="utf-8")
    assert text.count(patch.new) >= patch.count
    assert patch.old not in text.replace(patch.new, "")


PATCHED = pytest.mark.skipif(
    importlib.metadata.version("detectron2").startswith("0.6") and importlib.metadata.version("detectron2") != VERSION,
    reason="Detectron2 0.6 without these patches: run `la-det install-detectron2`",
)


@PATCHED
def test_map_dataset_falls_back_where_the_mapper_returns_none() -> None:
    dataset = MapDataset(list(range(20)), lambda x: None if x % 2 else x)
    assert all(dataset[i] % 2 == 0 for i in range(20))


@PATCHED
def test_checkpoints_hold_the_state_of_torchs_schedulers() -> None:
    def hook(steps: int) -> LRScheduler:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
        for _ in range(steps):
            optimizer.step()
            scheduler.step()
        return LRScheduler(optimizer, scheduler)

    stopped, resumed = hook(3), hook(0)
    resumed.load_state_dict(stopped.state_dict())
    assert resumed.scheduler.last_epoch == 3 and resumed.scheduler.get_last_lr() == stopped.scheduler.get_last_lr()


@PATCHED
def test_histogram_of_classes() -> None:
    print_instances_class_histogram([{"annotations": [{"category_id": 1}, {"category_id": 1}]}], ["a", "b"])


@PATCHED
def test_tracing_and_counting_need_no_caffe2() -> None:
    assert importlib.import_module("detectron2.export").TracingAdapter
    assert importlib.import_module("detectron2.utils.analysis").FlopCountAnalysis


CHANGING = ("PIL", "matplotlib", "numpy", "random", "torch", "torchvision")


@PATCHED
@pytest.mark.slow
def test_every_name_of_other_packages_exists() -> None:
    """Names that are written out, such as `np.int`, in all modules of Detectron2."""
    root = Path(detectron2.__file__).parent
    missing = [
        f"{path.relative_to(root)}: {name}"
        for path in sorted(root.rglob("*.py"))
        for name in written_names(ast.parse(path.read_text(encoding="utf-8")))
        if name.split(".")[0] in CHANGING and not name.startswith("torch.ops.") and not exists(name)
    ]
    assert missing == []


def written_names(module: ast.Module) -> set[str]:
    """Dotted names of what a module imports from elsewhere or reads as an attribute of it."""
    imported, names = {}, set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            imported |= {
                a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            imported |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names if a.name != "*"}
    for node in ast.walk(module):
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id in imported:
            names.add(".".join([imported[node.id], *reversed(parts)]))
    return names


def exists(name: str) -> bool:
    """Whether a dotted name leads somewhere, as far as modules and classes go."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
            if not isinstance(found, type | ModuleType):
                break
        return True
    return False


def test_compiled_operators_stand_in_says_what_is_missing() -> None:
    module: dict = {}
    exec(NO_COMPILED_OPS, module)
    with pytest.raises(RuntimeError, match=r"_C\.box_iou_rotated is not available.*--source"):
        module["__getattr__"]("box_iou_rotated")


def test_archive_with_another_hash_is_refused(index: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (index / ARCHIVE).write_bytes(b"not the archive")
    assert main(["--wheel-dir", str(tmp_path / "wheels")]) == 1
    assert "refusing to use it" in capsys.readouterr().err
    assert not (tmp_path / "wheels").exists()


def test_missing_archive_is_reported(index: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--wheel-dir", str(index)]) == 1
    assert f"{ARCHIVE} was not found" in capsys.readouterr().err


def test_working_installation_is_kept(
    pip_calls: list, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: VERSION)
    assert main([]) == 0
    assert "keeping Detectron2" in capsys.readouterr().out
    assert not pip_calls


def test_wheel_without_all_patches_is_replaced(pip_calls: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.6+py")
    monkeypatch.setattr(install_detectron2, "verify", lambda: (True, "0.6"))
    monkeypatch.setattr(install_detectron2, "build_wheel", lambda wheel_dir: wheel_dir / "built.whl")
    assert main([]) == 0
    assert pip_calls[0][-1].endswith("built.whl")


def test_broken_installation_is_replaced(pip_calls: list, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([(False, "ImportError"), (True, "0.6")])
    monkeypatch.setattr(install_detectron2, "verify", lambda: next(answers))
    monkeypatch.setattr(install_detectron2, "build_wheel", lambda wheel_dir: wheel_dir / "built.whl")
    assert main([]) == 0
    assert all(call[0] == "install" and call[-1].endswith("built.whl") for call in pip_calls)
    assert "--force-reinstall" in pip_calls[0]


def test_installation_that_does_not_work_is_an_error(
    pip_calls: list, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(install_detectron2, "verify", lambda: (False, "No module named 'torch'"))
    monkeypatch.setattr(install_detectron2, "build_wheel", lambda wheel_dir: wheel_dir / "built.whl")
    assert main([]) == 1
    assert "No module named 'torch'" in capsys.readouterr().err


def test_failing_essentials_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install_detectron2, "ESSENTIALS", "import detectron2_that_is_not_there")
    works, message = install_detectron2.verify()
    assert not works
    assert "No module named 'detectron2_that_is_not_there'" in message


@pytest.mark.parametrize(
    ("source", "location"),
    [
        ("https://example.org/detectron2.git", "git+https://example.org/detectron2.git"),
        ("git+ssh://example.org/detectron2.git", "git+ssh://example.org/detectron2.git"),
        (".", "."),
        (None, UPSTREAM),
    ],
)
def test_source_is_built_against_the_installed_torch(
    source: str | None, location: str, pip_calls: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install_detectron2, "verify", lambda: (True, "0.6"))
    assert main(["--source", *([source] if source else [])]) == 0
    builds = [call for call in pip_calls if call[-1] == location]
    assert builds
    assert all("--no-build-isolation" in call for call in builds)


def test_upstream_is_one_commit() -> None:
    assert re.fullmatch(r"git\+https://github.com/facebookresearch/detectron2@[0-9a-f]{40}", UPSTREAM)


def test_source_that_is_no_place_is_refused(pip_calls: list, capsys: pytest.CaptureFixture) -> None:
    assert main(["--source", "no-such-folder"]) == 1
    assert "neither a folder nor the URL" in capsys.readouterr().err
    assert not pip_calls


def test_help_names_the_options(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    assert done.value.code == 0
    printed = capsys.readouterr().out
    assert "--source" in printed
    assert "--wheel-dir" in printed
