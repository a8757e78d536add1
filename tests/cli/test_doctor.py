import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

from la_det import cli
from la_det.cli import doctor


def test_everything_needed_works(capsys):
    assert cli.run("doctor", []) == 0
    report = capsys.readouterr().out
    assert "[ok]      fast COCO evaluation" in report and "[ok]      torchvision operators" in report
    assert "BROKEN" not in report


@pytest.mark.parametrize(("needed", "status", "mark"), [(True, 1, "[BROKEN]"), (False, 0, "[without]")])
def test_what_is_broken_comes_with_advice(capsys, monkeypatch, needed, status, mark):
    def broken():
        raise OSError("undefined symbol:\n  _ZN2at")

    monkeypatch.setattr(doctor, "CHECKS", (doctor.Check("thing", broken, "install it", needed),))
    assert cli.run("doctor", []) == status
    assert f"{mark} thing: undefined symbol: _ZN2at\n          -> install it" in capsys.readouterr().out


def test_missing_package():
    assert doctor.installed("no-such-package-at-all") == "not installed"


@pytest.mark.parametrize(
    ("version", "direct_url", "expected"),
    [
        ("0.6+py9", None, "release 0.6 in pure Python, patched for current packages, by `la-det install-detectron2`"),
        ("0.6", None, "version 0.6"),
        ("0.6", {"url": "file:///src", "dir_info": {}}, "version 0.6 from file:///src"),
        (
            "0.6",
            {"url": "https://example.org/detectron2", "vcs_info": {"vcs": "git", "commit_id": "02b5c4"}},
            "version 0.6 from https://example.org/detectron2 at commit 02b5c4",
        ),
        ("0.6", {"url": "file:///src", "dir_info": {"editable": True}}, "version 0.6, a checkout at file:///src"),
        (None, None, "version 0.6, a source tree in FOLDER"),
        ("elsewhere", None, "version 0.6, a source tree in FOLDER"),
    ],
)
def test_names_the_detectron2(monkeypatch, tmp_path, version, direct_url, expected):
    """By the metadata that pip leaves, which says where an installation is from."""
    place, other = tmp_path / "detectron2", tmp_path / "other"
    for folder in (place, other):
        folder.mkdir()

    def from_name(name):
        if version is None:
            raise doctor.PackageNotFoundError(name)
        return SimpleNamespace(
            version=version,
            read_text=lambda file: direct_url and json.dumps(direct_url),
            locate_file=lambda name: other if version == "elsewhere" else place,
        )

    package = ModuleType("detectron2")
    package.__file__, package.__version__ = str(place / "__init__.py"), "0.6"
    monkeypatch.setitem(sys.modules, "detectron2", package)
    monkeypatch.setattr(doctor.Distribution, "from_name", from_name)
    assert doctor.which_detectron2() == expected.replace("FOLDER", str(place))
