"""tools/install_detectron2.py without network: what it refuses, what it keeps, what it would run."""

import importlib.metadata
from pathlib import Path

import pytest

import install_detectron2
from install_detectron2 import ARCHIVE, NO_COMPILED_OPS, PATCHES, InstallError, Patch, main

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


@pytest.mark.skipif(importlib.metadata.version("detectron2") != "0.6+py", reason="another Detectron2 is installed")
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.file)
def test_patches_are_in_the_installed_wheel(patch: Patch) -> None:
    text = Path(importlib.metadata.distribution("detectron2").locate_file(patch.file)).read_text(encoding="utf-8")
    assert text.count(patch.new) >= patch.count
    assert patch.old not in text.replace(patch.new, "")


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


def test_working_installation_is_kept(pip_calls: list, capsys: pytest.CaptureFixture) -> None:
    assert main([]) == 0
    assert "keeping Detectron2" in capsys.readouterr().out
    assert not pip_calls


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
    ],
)
def test_source_is_built_against_the_installed_torch(
    source: str, location: str, pip_calls: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install_detectron2, "verify", lambda: (True, "0.6"))
    assert main(["--source", source]) == 0
    builds = [call for call in pip_calls if call[-1] == location]
    assert builds
    assert all("--no-build-isolation" in call for call in builds)


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
