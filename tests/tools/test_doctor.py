import sys

import pytest

import doctor


@pytest.fixture(autouse=True)
def no_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["doctor.py"])


def test_everything_needed_works(capsys):
    assert doctor.main() == 0
    report = capsys.readouterr().out
    assert "[ok]      fast COCO evaluation" in report and "[ok]      torchvision operators" in report
    assert "BROKEN" not in report


@pytest.mark.parametrize(("needed", "status", "mark"), [(True, 1, "[BROKEN]"), (False, 0, "[without]")])
def test_what_is_broken_comes_with_advice(capsys, monkeypatch, needed, status, mark):
    def broken():
        raise OSError("undefined symbol:\n  _ZN2at")

    monkeypatch.setattr(doctor, "CHECKS", (doctor.Check("thing", broken, "install it", needed),))
    assert doctor.main() == status
    assert f"{mark} thing: undefined symbol: _ZN2at\n          -> install it" in capsys.readouterr().out


def test_missing_package():
    assert doctor.installed("no-such-package-at-all") == "not installed"
