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
        ("0.6", None, "version 0.6 from /somewhere/detectron2"),
        ("0.6", {"url": "file:///src/detectron2", "dir_info": {}}, "version 0.6 from file:///src/detectron2"),
        (
            "0.6",
            {"url": "https://github.com/facebookresearch/detectron2", "vcs_info": {"vcs": "git", "commit_id": "02b5c4"}},
            "version 0.6 from https://github.com/facebookresearch/detectron2 at commit 02b5c4",
        ),
        (None, None, "a source tree in /somewhere/detectron2, version 0.6"),
    ],
)
def test_names_the_detectron2(monkeypatch, version, direct_url, expected):
    """By the metadata that pip leaves, which says where an installation is from."""

    def from_name(name):
        if version is None:
            raise doctor.PackageNotFoundError(name)
        return SimpleNamespace(version=version, read_text=lambda file: direct_url and json.dumps(direct_url))

    package = ModuleType("detectron2")
    package.__file__, package.__version__ = "/somewhere/detectron2/__init__.py", "0.6"
    monkeypatch.setitem(sys.modules, "detectron2", package)
    monkeypatch.setattr(doctor.Distribution, "from_name", from_name)
    assert doctor.which_detectron2() == expected
