import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "doctor.py"


@pytest.fixture
def doctor(monkeypatch):
    spec = importlib.util.spec_from_file_location("doctor", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["doctor"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["doctor.py"])
    yield module
    del sys.modules["doctor"]


def test_everything_needed_works(doctor, capsys):
    assert doctor.main() == 0
    report = capsys.readouterr().out
    assert "[ok]      fast COCO evaluation" in report and "[ok]      torchvision operators" in report
    assert "BROKEN" not in report


@pytest.mark.parametrize(("needed", "status", "mark"), [(True, 1, "[BROKEN]"), (False, 0, "[without]")])
def test_what_is_broken_comes_with_advice(doctor, capsys, monkeypatch, needed, status, mark):
    def broken():
        raise OSError("undefined symbol:\n  _ZN2at")

    monkeypatch.setattr(doctor, "CHECKS", (doctor.Check("thing", broken, "install it", needed),))
    assert doctor.main() == status
    assert f"{mark} thing: undefined symbol: _ZN2at\n          -> install it" in capsys.readouterr().out


def test_missing_package(doctor):
    assert doctor.installed("no-such-package-at-all") == "not installed"
